"""The documentation as pages: python -m scripts.docs (make docs)."""
