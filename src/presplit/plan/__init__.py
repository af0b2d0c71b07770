"""Where to cut, when an exit may answer, and how the cut travels.

All is found by exact search over one cost formula.
"""

from presplit.plan.envelope import Box
from presplit.plan.explain import explain
from presplit.plan.limits import Limits
from presplit.plan.lists import front, table
from presplit.plan.placing import Placement, place
from presplit.plan.queueing import wait
from presplit.plan.search import baselines, candidates, search
from presplit.plan.site import Site, read_site, site_from

__all__ = [
    "Box",
    "Limits",
    "Placement",
    "Site",
    "baselines",
    "candidates",
    "explain",
    "front",
    "place",
    "read_site",
    "search",
    "site_from",
    "table",
    "wait",
]
