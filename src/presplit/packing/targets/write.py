"""A server's whole folder: made aside, checked, and then put in its place."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from presplit.bundle import Bundle
from presplit.core.errors import BundleError, SpecError
from presplit.packing.targets.tails import Checking, Tail, model_of, portable
from presplit.packing.targets.texts import config_json, config_pbtxt, inference_service, readme

TARGETS = ("triton", "ovms", "kserve")
"""The servers for which a repository can be written."""
MARK = "README.md"
"""By this file, and its first words, a folder of ours is known again."""


@dataclass(frozen=True)
class Written:
    """What was written: the folder, its models by name, their bytes, how far any was from ours."""

    path: Path
    target: str
    models: tuple[str, ...]
    nbytes: int
    difference: float
    native: tuple[str, ...]


def write_target(
    bundle: Bundle,
    target: str,
    path: Path,
    *,
    splits: Collection[int] = (),
    codecs: Collection[str] = (),
) -> Written:
    """Write the repository for ``target`` with the portable tails of ``bundle`` to ``path``.

    Only those of ``splits`` and ``codecs``, where they are given. Every tail is loaded and run in
    plain ONNX Runtime. A folder that was written so before is replaced. Raises `SpecError` for what
    the bundle does not have and for another folder at ``path``, `GraphError` for a tail that plain
    ONNX Runtime does not take or computes otherwise, `BundleError` if it cannot be written.
    """
    if target not in TARGETS:
        raise SpecError(f"target must be one of {', '.join(TARGETS)}, got {target!r}")
    tails = portable(bundle, splits=splits, codecs=codecs)
    title, native = _title(bundle), _native(bundle)
    _refuse_another(path)
    text = readme(target, tails, bundle=str(bundle.path), name=title, native=native)
    aside: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _refuse_full(bundle, tails, path.parent)
        aside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        aside.chmod(0o755)
        nbytes, difference = _write_models(bundle, tails, aside, configured=target != "ovms")
        if target == "ovms":
            (aside / "config.json").write_text(config_json(tails))
        if target == "kserve":
            (aside / "inference-service.yaml").write_text(inference_service(title, nbytes))
        (aside / MARK).write_text(text)
        if path.exists():
            shutil.rmtree(path)
        aside.rename(path)
    except OSError as error:
        raise BundleError(f"{path}: cannot be written ({error.strerror}); make room") from error
    finally:
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)
    names = tuple(tail.name for tail in tails)
    return Written(path, target, names, nbytes, difference, native)


def _write_models(
    bundle: Bundle, tails: Sequence[Tail], folder: Path, *, configured: bool
) -> tuple[int, float]:
    """Write every tail as ``models/NAME/1/model.onnx``: their bytes, and the largest difference."""
    checking, nbytes, difference = Checking(bundle), 0, 0.0
    for tail in tails:
        onnx = model_of(bundle, tail)
        difference = max(difference, checking.check(tail, onnx))
        version = folder / "models" / tail.name / "1"
        version.mkdir(parents=True)
        (version / "model.onnx").write_bytes(onnx)
        if configured:
            (version.parent / "config.pbtxt").write_text(config_pbtxt(tail))
        nbytes += len(onnx)
    return nbytes, difference


def _title(bundle: Bundle) -> str:
    """The bundle's name and hash as Kubernetes takes names: a label of DNS.

    It begins with a letter and has at most 63 characters; KServe puts ``-predictor`` behind it.
    """
    name = re.sub(r"[^a-z0-9]+", "-", bundle.manifest.name.lower()).strip("-")
    return f"presplit-{name[:26].strip('-')}-{bundle.manifest.model_hash[:12]}"


def _native(bundle: Bundle) -> tuple[str, ...]:
    """Codecs of the bundle that only our own server decodes."""
    ports = bundle.manifest.ports[: bundle.net.last]
    return tuple(
        sorted({name for port in ports for name in port.encodings if name not in port.entry})
    )


def _refuse_another(path: Path) -> None:
    """Raise `SpecError` unless ``path`` is free, empty, or holds what was written here before."""
    if not path.exists() and not path.is_symlink():
        return
    mark = path / MARK
    ours = mark.is_file() and mark.read_text(errors="replace").startswith("# presplit-")
    empty = path.is_dir() and not any(path.iterdir())
    if path.is_symlink() or not (ours or empty):
        raise SpecError(
            f"{path}: exists and is no repository that presplit wrote; choose another --out"
        )


def _refuse_full(bundle: Bundle, tails: Sequence[Tail], folder: Path) -> None:
    """Raise `SpecError` if the models do not fit on the disk: each tail holds its weights again."""
    needed = 0
    for tail in tails:
        pieces = bundle.manifest if tail.form == "float32" else bundle.manifest.forms[tail.form]
        needed += sum(
            bundle.manifest.files[part.file].bytes for part in pieces.segments[tail.split :]
        )
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise SpecError(
            f"{folder}: {len(tails)} models take {needed / 1e6:,.0f} MB, and {free / 1e6:,.0f} MB "
            "are free; choose fewer by --splits and --codecs, or make room"
        )
