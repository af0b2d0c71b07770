"""Serving: the tails of bundles behind the protocol, for many edges at once."""
