"""Whom the edge asks: a guard before each server, and the first of several."""
