"""Profiles: in one word, who answers first.

``balanced`` goes by the plan: sure exits answer, the server is asked for the rest. ``edge_first``
computes the whole net here where the deadline allows it, and asks only where it does not.
``server_first`` asks for every sample: no exit answers because it is sure. ``answer_then_escalate``
answers at once with what the device has, and asks behind the answer, so that a better one may
follow as a correction. ``offline`` never connects. What may run here is in all of them the plan's
fallback.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Profile:
    """``exits_answer``: a sure exit answers. ``first``: what happens to a sample of which none is.

    "plan": the server is asked. "here": it is computed here if the deadline allows that.
    "held": the device answers at once, and asks afterwards. ``asks`` is False to ask nobody ever.
    """

    exits_answer: bool = True
    first: Literal["plan", "here", "held"] = "plan"
    asks: bool = True


BALANCED = Profile()
EDGE_FIRST = Profile(first="here")
SERVER_FIRST = Profile(exits_answer=False)
ANSWER_THEN_ESCALATE = Profile(first="held")
OFFLINE = Profile(asks=False)
