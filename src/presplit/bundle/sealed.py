"""Whether the bytes of a manifest are as they were sealed, and what they say.

Whole and understood are two questions: a bundle of another version is not damaged.
"""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path
from typing import Any

import msgspec

import presplit
from presplit.bundle.fits import check_consistent
from presplit.bundle.manifest import FORMAT, Manifest
from presplit.core.errors import BundleError, SpecError


def parse_manifest(raw: bytes, file: Path) -> Manifest:
    """The manifest in ``raw``, the bytes of ``file``.

    Raises `BundleError` unless all is as it was written.
    """
    damaged = f"{file}: damaged: its SHA-256 does not match; copy or export the bundle again"
    try:
        version = msgspec.json.decode(raw, type=_Format).format
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(damaged) from error
    if version != FORMAT:
        raise BundleError(
            f"{file}: bundle format {version}, this presplit reads {FORMAT}; export the bundle "
            "again"
        )
    if not _is_as_sealed(raw):
        raise BundleError(damaged)
    try:
        manifest = msgspec.json.decode(raw, type=Manifest)
    except (msgspec.MsgspecError, SpecError, RecursionError) as error:
        raise BundleError(_foreign(raw, file, error)) from error
    check_consistent(manifest, file)
    return manifest


def _is_as_sealed(raw: bytes) -> bool:
    """Whether the bytes are JSON without spaces or doubles that carries the SHA-256 of itself.

    They are taken as they are, not as this version would write them: an older one wrote the same
    values without the fields that came later, or in another order.
    """
    try:
        held = msgspec.json.decode(raw, type=dict[str, Any])
        if msgspec.json.encode(held) != raw:
            return False
        empty = msgspec.json.encode({**held, "sha256": ""})
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OverflowError):
        return False
    return hashlib.sha256(empty).hexdigest() == held.get("sha256")


def _foreign(raw: bytes, file: Path, error: Exception) -> str:
    """What to say of a manifest that is whole, but not one of this version."""
    maker = "another version"
    with contextlib.suppress(msgspec.MsgspecError, KeyError):
        maker = f"presplit {msgspec.json.decode(raw, type=_Made).versions['presplit']}"
    return (
        f"{file}: whole, but made by {maker}, which this presplit {presplit.__version__} does not "
        f"read ({error}); export the bundle again, or use the version that made it"
    )


class _Format(msgspec.Struct):
    format: int


class _Made(msgspec.Struct):
    versions: dict[str, str]
