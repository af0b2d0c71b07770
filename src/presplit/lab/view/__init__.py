"""To look at a net and try where to cut it: what it is made of, what is predicted and measured.

`open_net` gives a `Viewed`; `describe`, `predict`, `choose` and `Try.run` give values for JSON. The
page that shows them computes nothing itself.
"""

from presplit.lab.view.choosing import choose, first
from presplit.lab.view.describe import describe
from presplit.lab.view.here import look
from presplit.lab.view.opened import Viewed, open_net
from presplit.lab.view.place import Asked, Places, asked
from presplit.lab.view.predict import predict
from presplit.lab.view.trying import Try

__all__ = [
    "Asked",
    "Places",
    "Try",
    "Viewed",
    "asked",
    "choose",
    "describe",
    "first",
    "look",
    "open_net",
    "predict",
]
