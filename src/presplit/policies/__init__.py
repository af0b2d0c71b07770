"""Rules: when an exit may answer (EXITS: score the logits) and where to cut (SPLITS)."""

from collections.abc import Callable

from presplit.core.protocols import ExitPolicy, SplitPolicy
from presplit.core.shelf import Shelf
from presplit.policies.confidence import confidence
from presplit.policies.fixed import fixed

EXITS: Shelf[ExitPolicy] = Shelf("exit policy", {"confidence": confidence})
SPLITS: Shelf[Callable[[int], SplitPolicy]] = Shelf("split policy", {"fixed": fixed})
