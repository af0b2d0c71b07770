"""Rules: when an exit may answer (EXITS: score the logits)."""

from presplit.core.protocols import ExitPolicy
from presplit.core.shelf import Shelf
from presplit.policies.confidence import confidence
from presplit.policies.entropy import entropy
from presplit.policies.margin import margin

EXITS: Shelf[ExitPolicy] = Shelf(
    "exit policy", {"confidence": confidence, "margin": margin, "entropy": entropy}
)
