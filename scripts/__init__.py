"""Programs for those who work on Presplit; not part of what is installed."""
