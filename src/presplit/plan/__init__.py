"""Where to cut, when an exit may answer, and how the cut travels.

All three are found by exact search over one cost formula.
"""

from presplit.plan.explain import explain
from presplit.plan.search import baselines, candidates, search

__all__ = ["baselines", "candidates", "explain", "search"]
