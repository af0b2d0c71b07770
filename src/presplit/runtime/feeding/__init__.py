"""Feeding the edge: samples from files, cameras, streams and requests; answers as lines."""
