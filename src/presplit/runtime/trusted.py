"""How far a device or a server trusts the bundles that it is given."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from presplit.bundle import Bundle, Trust, read
from presplit.bundle.sign import public_key_in
from presplit.runtime.quarantine import try_out


def reader(
    keys: Sequence[str | Path] = (), *, untrusted: bool = False, state: str | Path | None = None
) -> Callable[[str | Path], Bundle]:
    """What reads a bundle: signed by one of the public ``keys`` (files), if there are any.

    Which bundles were taken is remembered in the file ``state``, else in the user's own folder.
    Those that are ``untrusted`` are read strictly and tried in a process of their own. Raises
    `SpecError` for a file that holds no key.
    """
    trust = None
    if keys:
        remembered = Path(state) if state is not None else _remembered()
        trust = Trust(tuple(public_key_in(Path(key)) for key in keys), remembered)
    return functools.partial(_read, trust=trust, untrusted=untrusted)


def _read(path: str | Path, *, trust: Trust | None, untrusted: bool) -> Bundle:
    found = read(path, trust=trust, strict=untrusted)
    if untrusted:
        try_out(found)
    return found


def _remembered() -> Path:
    """Where it stands which bundles were taken."""
    own = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(own) / "presplit" / "bundles.json"
