"""Rules.

When an exit may answer (EXITS), by which row of a table an answer is found (SPLITS), and who
answers first (PROFILES).
"""

from presplit.core.protocols import ExitPolicy, SplitPolicyOf
from presplit.core.shelf import Shelf
from presplit.policies.confidence import confidence
from presplit.policies.entropy import entropy
from presplit.policies.fixed import Fixed
from presplit.policies.margin import margin
from presplit.policies.profile import (
    ANSWER_THEN_ESCALATE,
    BALANCED,
    EDGE_FIRST,
    OFFLINE,
    SERVER_FIRST,
    Profile,
)
from presplit.policies.table import Best

EXITS: Shelf[ExitPolicy] = Shelf(
    "exit policy", {"confidence": confidence, "margin": margin, "entropy": entropy}
)
SPLITS: Shelf[SplitPolicyOf] = Shelf("split policy", {"table": Best, "fixed": Fixed})
PROFILES: Shelf[Profile] = Shelf(
    "profile",
    {
        "balanced": BALANCED,
        "edge_first": EDGE_FIRST,
        "server_first": SERVER_FIRST,
        "answer_then_escalate": ANSWER_THEN_ESCALATE,
        "offline": OFFLINE,
    },
)
