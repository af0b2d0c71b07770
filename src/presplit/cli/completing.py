"""What a shell offers after an option, where the values are known and quick to find.

Each function is given what was typed so far and gives what may stand there. Rooms are imported when
a shell asks, so that ``--help`` stays quick.
"""

from __future__ import annotations

from collections.abc import Iterable


def _begun(names: Iterable[str], typed: str) -> list[str]:
    """Those of ``names`` that go on from what was typed.

    >>> _begun(["wifi", "lte"], "w")
    ['wifi']
    """
    return [name for name in names if name.startswith(typed)]


def devices(incomplete: str) -> list[str]:
    """Named devices, on which nets run or are served."""
    from presplit.profiles import DEVICES

    return _begun(DEVICES, incomplete)


def links(incomplete: str) -> list[str]:
    """Named links."""
    from presplit.profiles import LINKS

    return _begun(LINKS, incomplete)


def codecs(incomplete: str) -> list[str]:
    """Codecs; several are separated by commas."""
    from presplit.codecs import CODECS

    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in _begun(["usual", "all", *CODECS], last)]


def recipes(incomplete: str) -> list[str]:
    """Recipes of training."""
    from presplit.core.recipe import RECIPES

    return _begun(RECIPES, incomplete)


def families(incomplete: str) -> list[str]:
    """Families of patterns."""
    from presplit.patterns import CHOSEN, PATTERNS

    return _begun(dict.fromkeys([*PATTERNS, *CHOSEN]), incomplete)


def data_sets(incomplete: str) -> list[str]:
    """Data sets with a name; files and folders are offered by the shell itself."""
    return _begun(("digits", "mnist", "cifar10", "clothing", "fsdd"), incomplete)


def policies(incomplete: str) -> list[str]:
    """Policies by which an exit is sure."""
    from presplit.policies import EXITS

    return _begun(EXITS, incomplete)


def profiles(incomplete: str) -> list[str]:
    """Who answers first."""
    from presplit.policies import PROFILES

    return _begun(PROFILES, incomplete)


def fallbacks(incomplete: str) -> list[str]:
    """What a device may run where no server answers."""
    return _begun(("none", "exit", "deepest"), incomplete)


def forms(incomplete: str) -> list[str]:
    """The forms in which a net may compute."""
    return _begun(("float32", "int8"), incomplete)


def targets(incomplete: str) -> list[str]:
    """Other servers for which tails are written."""
    return _begun(("triton", "ovms", "kserve"), incomplete)
