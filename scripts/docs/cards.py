"""A card for every method on a shelf: what it is, its source and ranges, a doctest, a picture.

The words are the docstrings'; what a card adds is drawn or counted from the method itself.
"""

from __future__ import annotations

import inspect
import sys

import numpy as np

from presplit.codecs import CODECS, USUAL
from presplit.core.recipe import Recipe
from presplit.core.types import Pattern
from presplit.patterns import CHOSEN, LEGAL, PATTERNS
from presplit.policies import EXITS, PROFILES, SPLITS
from presplit.train.fitting.augment import AUGMENTATIONS
from presplit.train.fitting.recipe import OPTIMISERS, SCHEDULES
from scripts.docs.doctests import fenced

SHOWN = 32
"""Inputs and outputs of the layer that a card draws."""


def patterns() -> str:
    """The families of patterns."""
    parts = [
        "# Pattern families\n",
        "Which one to take, and how each runs: [patterns](../patterns.md). Each picture is the "
        f"weight matrix of a layer with {SHOWN} inputs (across) and {SHOWN} outputs (down), at the "
        "density nearest to a quarter that the family has; what is dark exists.\n",
    ]
    for name, family in PATTERNS.items():
        legal = LEGAL[name](SHOWN, SHOWN)
        density = min(legal, key=lambda each: abs(each - 0.25))
        drawn = picture(family(SHOWN, SHOWN, density=density), f"{name} at density {density:g}")
        shown = ", ".join(f"{each:.3g}" for each in legal[:12])
        more = " ..." if len(legal) > 12 else ""
        chosen = "yes" if name in CHOSEN else "no"
        parts += [
            f"## {name}\n",
            drawn + "\n",
            _about(family) + "\n",
            f"Densities of this layer: {shown}{more}. Chosen from a trained net, too: {chosen}.\n",
            _reference(family),
        ]
    return "\n".join(parts)


def needing_more() -> str:
    """The families that are no names on the shelf."""
    names = {
        "local": ("local", "over"),
        "data_aware": ("importance", "by_importance", "over"),
        "butterfly": ("butterfly",),
        "periodic_kernel": ("periodic_kernel", "KernelSupports"),
        "density": ("allocate", "by_time"),
        "score": ("reach", "paths", "scatters", "tile_balance", "input_balance"),
    }
    parts = ["# Patterns that need to know more\n"]
    for module, functions in names.items():
        home = f"presplit.patterns.{module}"
        __import__(home)
        parts += [f"## {module}\n", fenced(inspect.getdoc(sys.modules[home]) or "") + "\n"]
        parts += [_at(f"{home}.{name}") for name in functions]
    return "\n".join(parts)


def codecs() -> str:
    """How a boundary travels."""
    parts = [
        "# Codecs\n",
        "What each costs and loses at which boundary is measured when a bundle is made: "
        "[a bundle](../bundle.md#codecs).\n",
        "| codec | tried unless told otherwise | what it does |\n|---|---|---|",
    ]
    kinds: dict[type, list[str]] = {}
    for name, codec in CODECS.items():
        kinds.setdefault(type(codec), []).append(name)
        summary = (inspect.getdoc(type(codec)) or "").split("\n")[0]
        parts.append(f"| `{name}` | {'yes' if name in USUAL else ''} | {summary} |")
    parts.append("")
    for kind, names in kinds.items():
        parts += [f"## {', '.join(names)}\n", _about(kind) + "\n", _reference(kind)]
    return "\n".join(parts)


def policies() -> str:
    """When an exit may answer, which row of a table is taken, who answers first."""
    parts = ["# Policies\n", "## Exits: how sure is an answer\n"]
    for name, policy in EXITS.items():
        parts += [f"`{name}`\n", _reference(policy)]
    parts.append("## Splits: which row of the table\n")
    for name, make in SPLITS.items():
        parts += [f"`{name}`\n", _about(make) + "\n", _reference(make)]
    parts += ["## Profiles: who answers first\n", _module("presplit.policies.profile") + "\n"]
    parts += ["| profile | sure exits answer | else first | asks |\n|---|---|---|---|"]
    for name, profile in PROFILES.items():
        answers, asks = ("yes" if it else "no" for it in (profile.exits_answer, profile.asks))
        parts.append(f"| `{name}` | {answers} | {profile.first} | {asks} |")
    parts += ["", "## Drift: when to raise the alarm\n", _module("presplit.policies.drift") + "\n"]
    parts.append(_at("presplit.policies.drift.Drift"))
    return "\n".join(parts)


def recipes() -> str:
    """Parts of a recipe."""
    parts = [
        "# Parts of a recipe\n",
        "What they are for and how they are used: [training](../training.md).\n",
        fenced(inspect.getdoc(Recipe) or "") + "\n",
        "## Optimisers\n",
        ", ".join(f"`{name}`" for name in OPTIMISERS) + ". `sgd` has Nesterov momentum 0.9.\n",
        "## Schedules\n",
        ", ".join(f"`{name}`" for name in SCHEDULES)
        + ". `one_cycle`: arXiv 1708.07120; `inverse_time`: `rate / (1 + decay * step)`.\n",
        "## Augmentations\n",
        _module("presplit.train.fitting.augment") + "\n",
        "| name | of samples | does |\n|---|---|---|",
    ]
    forms = {3: "sounds", 4: "images", None: "any"}
    for name, each in AUGMENTATIONS.items():
        said = " ".join((inspect.getdoc(each.change) or "").split())
        unit = ", in 0..1" if each.unit else ""
        parts.append(f"| `{name}` | {forms[each.axes]}{unit} | {said} |")
    parts += ["", "## Losses, mixing, balance\n"]
    for home in ("losses", "mixup", "balance"):
        parts += [_module(f"presplit.train.fitting.{home}") + "\n"]
    return "\n".join(parts)


def picture(pattern: Pattern, title: str, side: int = 160) -> str:
    """An SVG of the connections of ``pattern``, light and dark by the text's own colour."""
    mask = pattern.mask()
    step = side / max(mask.shape)
    runs: list[str] = []
    for row, line in enumerate(mask):
        edges = np.flatnonzero(np.diff(np.r_[0, line.astype(int), 0]))
        for start, stop in zip(edges[::2], edges[1::2], strict=True):
            left, top, width = start * step, row * step, (stop - start) * step
            runs.append(f"M{left:.4g} {top:.4g}h{width:.4g}v{step:.4g}h-{width:.4g}z")
    return (
        f'<svg class="pattern" role="img" aria-label="{title}" width="{side}" height="{side}" '
        f'viewBox="0 0 {side} {side}"><title>{title}</title><path d="{"".join(runs)}"/></svg>'
    )


def _about(thing: object) -> str:
    """The docstring of the module that ``thing`` is of."""
    return _module(thing.__module__)


def _module(name: str) -> str:
    """The docstring of a module."""
    __import__(name)
    return fenced(inspect.getdoc(sys.modules[name]) or "")


def _reference(thing: object) -> str:
    """Where mkdocstrings is to put the signature and docstring of ``thing``."""
    return _at(f"{thing.__module__}.{thing.__qualname__}")  # type: ignore[attr-defined]


def _at(path: str) -> str:
    """The same for a path."""
    return f"::: {path}\n    options:\n      show_root_toc_entry: false\n      members: false\n"
