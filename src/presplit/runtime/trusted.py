"""How far a device or a server trusts the bundles that it is given."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from presplit.bundle import Bundle, Trust, read
from presplit.bundle.sign import public_key_in
from presplit.runtime.quarantine import try_out


@dataclass(frozen=True)
class Reader:
    """Reads bundles as far as they are trusted; called with a path, it gives the bundle."""

    trust: Trust | None
    untrusted: bool

    def __call__(self, path: str | Path) -> Bundle:
        """The bundle at ``path``, which is not yet `taken`; raises `BundleError`."""
        found = read(path, trust=self.trust, strict=self.untrusted, remember=False)
        if self.untrusted:
            try_out(found)
        return found

    def taken(self, bundle: Bundle) -> None:
        """Remember ``bundle``, which has proved to be good: older ones are refused from now on.

        Not before: one that turned out bad would bar the way back to the last good one. Raises
        `BundleError` if a newer one was taken meanwhile, or if it cannot be remembered.
        """
        if self.trust is not None and bundle.statement is not None:
            self.trust.remember(bundle.statement, bundle.path)


def reader(
    keys: Sequence[str | Path] = (), *, untrusted: bool = False, state: str | Path | None = None
) -> Reader:
    """What reads a bundle: signed by one of the public ``keys`` (files), if there are any.

    Which bundles were taken is remembered in the file ``state``, else in the user's own folder.
    Those that are ``untrusted`` are read strictly and tried in a process of their own. Raises
    `SpecError` for a file that holds no key.
    """
    trust = None
    if keys:
        remembered = Path(state) if state is not None else _remembered()
        trust = Trust(tuple(public_key_in(Path(key)) for key in keys), remembered)
    return Reader(trust, untrusted)


def _remembered() -> Path:
    """Where it stands which bundles were taken."""
    own = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(own) / "presplit" / "bundles.json"
