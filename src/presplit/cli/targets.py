"""What `presplit export --target` does: a bundle's tails in another server's own form."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from presplit.cli.options import show
from presplit.core.errors import SpecError

if TYPE_CHECKING:
    from presplit.bundle import Bundle


def is_bundle(path: Path | None) -> bool:
    """Whether a bundle lies at ``path``, whole or not."""
    from presplit.bundle.files import MANIFEST

    return path is not None and (path / MANIFEST).is_file()


def check_target(target: str | None, splits: str | None, *, bundle: bool) -> None:
    """Raise `SpecError` for a target that does not exist, and for what needs one and has none."""
    if target is None:
        if splits is not None:
            raise SpecError("--splits chooses tails for another server: give --target triton")
        if bundle:
            raise SpecError(
                "that is a bundle already; say for which server its tails are wanted: --target "
                "triton, ovms or kserve"
            )
        return
    from presplit.packing.targets import TARGETS

    if target not in TARGETS:
        raise SpecError(f"--target: expected one of {', '.join(TARGETS)}, got {target!r}")


def write(
    bundle: Bundle,
    target: str,
    *,
    out: Path | None,
    splits: str | None,
    codecs: list[str],
    as_json: bool,
) -> None:
    """Write the repository beside the bundle, or to ``out``, and say what is in it."""
    from presplit.packing.targets import write_target

    written = write_target(
        bundle,
        target,
        out or bundle.path.absolute().with_suffix(f".{target}"),
        splits=_numbers(splits),
        codecs=codecs,
    )
    how = (
        "bit for bit" if written.difference == 0 else f"within {written.difference:.1g} (relative)"
    )
    lines = [
        *(f"  {name}" for name in written.models),
        f"{len(written.models)} models, {written.nbytes / 1e6:.1f} MB; plain ONNX Runtime computes "
        f"what presplit serve does, {how}.",
    ]
    if written.native:
        lines.append(
            f"Not there: {', '.join(written.native)}, which presplit serve alone decodes; an edge "
            "whose plan sends one of them is refused."
        )
    lines.append(f"Written: {written.path}. How to start it: {written.path / 'README.md'}")
    show(
        {
            "target": target,
            "path": str(written.path),
            "models": list(written.models),
            "bytes": written.nbytes,
            "largest_difference": written.difference,
            "left_out": list(written.native),
        },
        "\n".join(lines),
        as_json=as_json,
    )


def _numbers(splits: str | None) -> list[int]:
    """The boundaries in ``0,3``; none where nothing was said."""
    if splits is None:
        return []
    try:
        return [int(part) for part in splits.split(",")]
    except ValueError as error:
        raise SpecError(f"--splits: expected boundaries such as 0,3, got {splits!r}") from error
