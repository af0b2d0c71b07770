"""How several trainings share one machine: each takes its threads, and one of its GPUs in turn.

Trainings on one GPU take turns on it by themselves: small nets leave most of it idle.
"""

from __future__ import annotations

import torch


def take_part(number: int, *, threads: int) -> None:
    """Let this process compute with so many ``threads``, as the training of that ``number``."""
    torch.set_num_threads(threads)
    if torch.cuda.is_available() and torch.cuda.device_count() > 1:
        torch.cuda.set_device(number % torch.cuda.device_count())
