"""Rules: when an exit may answer (EXITS), by which row of a table an answer is found (SPLITS)."""

from presplit.core.protocols import ExitPolicy, SplitPolicyOf
from presplit.core.shelf import Shelf
from presplit.policies.confidence import confidence
from presplit.policies.entropy import entropy
from presplit.policies.fixed import Fixed
from presplit.policies.margin import margin
from presplit.policies.table import Best

EXITS: Shelf[ExitPolicy] = Shelf(
    "exit policy", {"confidence": confidence, "margin": margin, "entropy": entropy}
)
SPLITS: Shelf[SplitPolicyOf] = Shelf("split policy", {"table": Best, "fixed": Fixed})
