"""The page of `presplit view`: its files, and what it asks for as it is used."""

from __future__ import annotations

from typing import Any

import msgspec

from presplit.lab.view.choosing import choose
from presplit.lab.view.describe import describe
from presplit.lab.view.place import Asked, Places, asked
from presplit.lab.view.predict import predict
from presplit.lab.view.trying import Try
from presplit.plan.limits import Limits
from presplit.report.pages import files
from presplit.runtime.page import Page

FILES = ("look.css", "view.css", "view.js", "view_net.js", "view_times.js", "view_words.js")


def serve(places: Places, trying: Try, begin: Asked, limits: Limits, *, port: int = 0) -> Page:
    """The page at a ``port`` of this machine (0: any), until its `close`.

    It shows ``begin`` first; the planner's choice keeps to ``limits``. Raises `ServerError` if the
    port is taken.
    """
    net = {**describe(places), "begin": msgspec.to_builtins(begin)}

    def chosen(value: Any) -> dict[str, Any]:
        return choose(places, asked(value), limits)

    return Page(
        port,
        files={"": files("view.html")["view.html"], **files(*FILES)},
        gets={"net": lambda _: net},
        posts={
            "predict": lambda value: predict(places, asked(value)),
            "choose": chosen,
            "run": lambda value: trying.run(asked(value)),
        },
    )
