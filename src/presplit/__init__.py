"""Predefined sparsity, early exits and split points for PyTorch classifiers at the edge.

Everything lives in its room: ``presplit.train`` (needs torch), ``presplit.plan``,
``presplit.runtime`` (never needs torch). Importing this package imports none of them.
"""

__version__ = "0.1.0"
