"""``presplit export``: a trained run, or any ONNX classifier, becomes a bundle.

It is cut at every boundary.

The second way needs no torch: the file is cut as it is, and what is cut is checked against the file
by ONNX Runtime.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from presplit.cli import completing
from presplit.cli.options import OWN_CODE, Json, say, show
from presplit.core.errors import BundleError, InputError, SpecError, context

if TYPE_CHECKING:
    import numpy as np

    from presplit.bundle import Bundle


def export(
    run: Annotated[
        Path | None,
        typer.Argument(help="A run directory of presplit train; with --target a bundle, too."),
    ] = None,
    model: Annotated[str | None, typer.Option(help=OWN_CODE)] = None,
    onnx: Annotated[
        Path | None,
        typer.Option("--from", metavar="MODEL.onnx", help="Any ONNX classifier instead of a run."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Bundle directory; default RUN/NAME.bundle or MODEL.bundle. With --target the "
            "folder for that server; default NAME.triton beside the bundle."
        ),
    ] = None,
    output: Annotated[
        list[str],
        typer.Option(
            metavar="NAME",
            help="With --from: the file's output that tells the classes apart, if it has others; "
            "given several times, early exits first.",
        ),
    ] = [],
    samples: Annotated[
        Path | None,
        typer.Option(help="With --from: a .npy file (n, *shape) that gives the ranges for int8."),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="With --samples: a .npy file (n,) of classes, from which plans are made."
        ),
    ] = None,
    codecs: Annotated[
        str,
        typer.Option(
            autocompletion=completing.codecs,
            help="Codecs to try at each boundary, separated by commas; usual, or all of them.",
        ),
    ] = "usual",
    forms: Annotated[
        str,
        typer.Option(
            help="float32, or float32,int8: the net computes in int8 too if a plan says so."
        ),
    ] = "float32",
    target: Annotated[
        str | None,
        typer.Option(
            autocompletion=completing.targets,
            help="Write the tails for another server too: triton, ovms (OpenVINO Model Server) or "
            "kserve, each as plain ONNX that is checked, with configuration and README.",
        ),
    ] = None,
    splits: Annotated[
        str | None,
        typer.Option(help="With --target: tails from these boundaries alone, as in 0,3."),
    ] = None,
    prepare: Annotated[
        list[str],
        typer.Option(
            metavar="KEY=VALUE",
            help="What an image file goes through before the net takes it, if training does not "
            "say: imagenet, plain, or how=fit|crop|stretch|exact, shorter=256, mean=0.5,0.5,0.5, "
            "deviation=..., divide=255, resample=bilinear, bgr=true, ...",
        ),
    ] = [],
    force: Annotated[
        bool, typer.Option("--force", help="Replace a bundle that carries a plan or a signature.")
    ] = False,
    json: Json = False,
) -> None:
    """Cut a run, or an ONNX classifier, at every boundary into a bundle.

    The bundle is checked against torch, or against the file. With --target, its tails are written
    for another server.
    """
    from presplit.cli import targets
    from presplit.cli.inspect import describe, text

    given = targets.is_bundle(run)
    targets.check_target(target, splits, bundle=given)
    if given and run is not None and target is not None:
        _refuse_with_bundle(model, onnx, samples, labels, prepare or None, output or None)
        some = [] if codecs in ("usual", "all") else _codecs(codecs)
        from presplit.bundle import read

        targets.write(read(run), target, out=out, splits=splits, codecs=some, as_json=json)
        return
    if output and onnx is None:
        raise SpecError("--output belongs to --from MODEL.onnx: a run has its own exits")
    bundle = _bundle(
        run,
        None if target else out,
        model,
        None if onnx is None else (onnx, output),
        (samples, labels),
        (codecs, forms),
        prepare,
        force=force,
    )
    if target is not None:
        targets.write(bundle, target, out=out, splits=splits, codecs=[], as_json=json)
        return
    facts = describe(bundle)
    path = quote(str(bundle.path))
    following = f"presplit plan {path} --save"
    if bundle.manifest.validation is None:
        following = f"presplit serve {path}"
    show(
        facts,
        f"{text(facts)}\nBundle: {bundle.path}\nNext: {following}",
        as_json=json,
    )


def _refuse_with_bundle(*options: object) -> None:
    """Raise `SpecError` if any of the ``options`` that make a bundle was given."""
    if any(option is not None for option in options):
        raise SpecError(
            "--model, --from, --output, --samples, --labels and --prepare make a bundle, and one "
            "was given already"
        )


def _bundle(
    run: Path | None,
    out: Path | None,
    model: str | None,
    onnx: tuple[Path, list[str]] | None,
    held: tuple[Path | None, Path | None],
    lists: tuple[str, str],
    prepare: list[str],
    *,
    force: bool,
) -> Bundle:
    """The bundle of what was named on the command line.

    ``onnx``: a file and the outputs of it that are named; ``held`` are files of samples and labels,
    ``lists`` names of codecs and of forms.
    """
    (samples, labels), (codecs, forms) = held, lists
    if (run is None) == (onnx is None):
        raise SpecError(
            "expected a run directory or --from MODEL.onnx, got "
            f"{'neither' if run is None else 'both'}"
        )
    if onnx is None and (samples or labels):
        raise SpecError(
            "--samples and --labels belong to --from MODEL.onnx: a run has its own held-out samples"
        )
    if labels and not samples:
        raise SpecError(
            "--labels needs the samples that it names the classes of: give --samples x.npy"
        )
    if onnx is not None and model is not None:
        raise SpecError("--model belongs to a run: an ONNX file needs no code")
    tried, named = _codecs(codecs), _forms(forms)
    if "int8" in named and onnx is not None and samples is None:
        raise SpecError(
            "--forms int8 needs samples, which show what its codes must reach over: give --samples "
            "x.npy"
        )
    if run:
        return _from_run(run, out, model, tried, named, prepare, force=force)
    assert onnx is not None
    return _from_onnx(onnx, out, held, tried, named, prepare, force=force)


def _codecs(text: str) -> list[str]:
    """The names in ``text``; raises `SpecError` for one that does not exist."""
    from presplit.codecs import CODECS, USUAL

    if text == "all":
        return [*CODECS]
    if text == "usual":
        return [*USUAL]
    with context("--codecs"):
        return [CODECS.find(name.strip()).name for name in text.split(",")]


def _forms(text: str) -> list[str]:
    """The names in ``text``."""
    return [name.strip() for name in text.split(",")]


def _from_run(
    run: Path,
    out: Path | None,
    model: str | None,
    codecs: Sequence[str],
    forms: Sequence[str],
    prepare: Sequence[str],
    *,
    force: bool,
) -> Bundle:
    import msgspec

    from presplit.cli.own_model import aside, run_of
    from presplit.train import export as write_bundle

    found = run_of(run, model)
    name, spec = found.spec.name, msgspec.to_builtins(found.spec)
    path = out or run / f"{name}.bundle"
    policy = found.spec.exits.policy if found.spec.exits else "confidence"
    labels = found.data.labels
    if found.data.rate:  # so that the bundle can take sounds of other rates
        spec["data"]["rate"] = found.data.rate
    with _replacing(path, force=force), aside():
        return write_bundle(
            found.model,
            found.held_out,
            path,
            name=name,
            labels=labels,
            policy=policy,
            codecs=codecs,
            forms=forms,
            spec=spec,
            prepare=prepare or found.data.preparation,
        )


def _from_onnx(
    source: tuple[Path, list[str]],
    out: Path | None,
    held: tuple[Path | None, Path | None],
    codecs: Sequence[str],
    forms: Sequence[str],
    prepare: Sequence[str],
    *,
    force: bool,
) -> Bundle:
    """The bundle of an ONNX file and the outputs of it that are named.

    ``held`` are the files of samples and labels.
    """
    from presplit.bundle.samples import read_samples
    from presplit.packing import pack

    (file, outputs), (samples, labels) = source, held
    path = out or file.with_suffix(".bundle")
    x = None if samples is None else read_samples(samples)
    y = None if labels is None else _labels(labels)
    with _replacing(path, force=force):
        bundle = pack(
            file,
            path,
            samples=x,
            labels=y,
            outputs=outputs,
            codecs=codecs,
            forms=forms,
            prepare=prepare,
        )
    if labels is not None:
        _say_of_chance(bundle)
    if samples is None:
        say("no --samples, so no ranges are known: the bundle has no int8")
    if labels is None:
        say("no --labels, so no accuracy is known: the bundle can be served and run, not planned")
    return bundle


def _say_of_chance(bundle: Bundle) -> None:
    """Say it if the net is right no more often than by chance."""
    right, classes = bundle.evidence("float32")[1][-1], bundle.net.exits[-1].classes
    chance = 1 / classes
    by_luck = chance + 3 * (chance * (1 - chance) / len(right)) ** 0.5
    if len(right) >= 20 and right.mean() <= by_luck:
        say(
            f"only {right.mean():.1%} of the {len(right)} samples are answered as --labels has "
            f"them, and guessing among {classes} classes gives {chance:.1%}: are the samples "
            "scaled as in training, and are the classes numbered as in the file?"
        )


@contextlib.contextmanager
def _replacing(path: Path, *, force: bool) -> Iterator[None]:
    """Replace the bundle that is at ``path``, if there is one.

    Raises `BundleError` if it carries a plan or a signature, which would be lost, unless ``force``
    says that they may be.
    """
    from presplit.bundle import read
    from presplit.bundle.files import SIGNATURE

    held: list[str] = []
    with contextlib.suppress(BundleError):
        held += ["a plan"] if read(path).plan is not None else []
    held += ["a signature"] if (path / SIGNATURE).exists() else []
    if held and not force:
        raise BundleError(
            f"{path}: a bundle with {' and '.join(held)} is there, which a new one would not have: "
            "--force replaces it, --out puts the new one elsewhere"
        )
    yield
    if held:
        say(f"{path} carried {' and '.join(held)}, made for what was there before; it is gone")


def _labels(path: Path) -> np.ndarray:
    """The labels in ``path``, one array."""
    import numpy as np

    from presplit.bundle.samples import read_array

    y = read_array(path, "labels")
    if not isinstance(y, np.ndarray):
        raise InputError(f"{path}: expected one array of labels, got an archive of arrays")
    return y
