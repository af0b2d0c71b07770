"""Rules: when an exit may answer (EXITS: score the logits) and where to cut (SPLITS)."""

from collections.abc import Callable

from presplit.core.protocols import ExitPolicy, SplitPolicy
from presplit.core.shelf import Shelf
from presplit.policies.confidence import confidence
from presplit.policies.entropy import entropy
from presplit.policies.fixed import fixed
from presplit.policies.margin import margin

EXITS: Shelf[ExitPolicy] = Shelf("exit policy", {"confidence": confidence, "margin": margin, "entropy": entropy})
SPLITS: Shelf[Callable[[int], SplitPolicy]] = Shelf("split policy", {"fixed": fixed})
