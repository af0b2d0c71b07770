"""Measuring: what bundles cost on this machine, and what links are like."""
