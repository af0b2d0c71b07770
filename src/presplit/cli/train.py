"""``presplit train``: train a spec, or the net that the options describe, into a run directory."""

from __future__ import annotations

import contextlib
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from presplit.cli import completing
from presplit.cli.console import shortened
from presplit.cli.following import after_run
from presplit.cli.options import Json, say, show
from presplit.cli.where import RUNS, going_on, place_of, run_to_resume
from presplit.core.errors import PresplitError, SpecError, context
from presplit.core.progress import tell

if TYPE_CHECKING:
    from presplit.core.spec import Spec
    from presplit.train.runs import Run


def train(
    spec: Annotated[
        Path | None, typer.Argument(help="A spec.toml; without one the options say what to train.")
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="RUN|FILE",
            help="Begin with a trained dense net: a run, or saved weights (.safetensors, .pt).",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Your own model as module:factory; its code is imported and runs."),
    ] = None,
    teacher_model: Annotated[
        str | None,
        typer.Option(help="Code of the run in training.teacher, if that is another own model."),
    ] = None,
    layers: Annotated[
        list[int], typer.Option(help="Sizes of an MLP, input and classes included: 800 40 40 10.")
    ] = [],
    fan_out: Annotated[
        list[int], typer.Option(help="Out-degree of each junction, as in arXiv 2407.11763: 2 9 10.")
    ] = [],
    density: Annotated[
        float | None, typer.Option(help="Density of every layer that can have it, in 0..1.")
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(help="Share of the dense net's weights, in 0..1, divided among the layers."),
    ] = None,
    nearest: Annotated[
        bool,
        typer.Option(
            "--nearest",
            help="Where a layer cannot have exactly the density, it takes the nearest that it can.",
        ),
    ] = False,
    family: Annotated[
        str | None,
        typer.Option(
            autocompletion=completing.families,
            help="Pattern family: grouped, tiled, biregular, ...",
        ),
    ] = None,
    after: Annotated[
        list[str], typer.Option(help="Submodules that an early exit follows, or auto.")
    ] = [],
    data: Annotated[
        str | None,
        typer.Option(
            autocompletion=completing.data_sets,
            help="digits, mnist, cifar10, clothing, fsdd, or a path: .npz, .csv, or a folder or "
            ".zip of images or sounds, train|test/CLASS/NAME.",
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            autocompletion=completing.recipes,
            help="How to train: default, or paper (arXiv 2407.11763).",
        ),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training part.")] = None,
    seed: Annotated[
        int | None,
        typer.Option(help="The same seed gives the same run, on one machine and thread count."),
    ] = None,
    skip_bad: Annotated[
        bool,
        typer.Option(
            "--skip-bad",
            help="Leave out the files of a folder or zip that cannot be read, and count them.",
        ),
    ] = False,
    set: Annotated[
        list[str], typer.Option(metavar="KEY=VALUE", help="Change one key of the spec.")
    ] = [],
    out: Annotated[
        Path | None,
        typer.Option(help="Run directory; default runs/NAME, or runs/NAME-2 where that is taken."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the run that is in the directory.")
    ] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with the run in --out, or with the one in runs/ that was interrupted; it "
            "knows its own spec.",
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Train a net into a run directory: spec, metrics, checkpoint, result."""
    from presplit.cli.own_model import aside, trusted
    from presplit.train import runs
    from presplit.train.fitting import distributed

    said = _tables(
        {
            "start.net": start,
            "data.name": data,
            "data.skip_bad": skip_bad or None,
            "sparsity.density": density,
            "sparsity.nearest": nearest or None,
            "sparsity.budget": budget,
            "sparsity.family": family,
            "training.recipe": recipe,
            "training.epochs": epochs,
            "seed": seed,
            "sparsity.fan_out": fan_out or None,
            "exits.after": after or None,
            **_net(model, layers),
        }
    )
    resolved, directory = _chosen(spec, said, set, out, force=force, resume=resume)
    is_first = distributed.rank() == 0
    for note in runs.notes(resolved):
        tell(note)
    own = trusted(model, teacher_model)
    try:
        with aside():
            result = runs.train(
                resolved, directory, own=own, resume=resume, replace=force, on_data=_tell_data
            )
    except (KeyboardInterrupt, PresplitError) as error:
        is_outer = isinstance(error, KeyboardInterrupt) or isinstance(error.__cause__, OSError)
        if is_first and is_outer and _has_state(directory):
            say(f"stopped; to go on after the last epoch: {going_on(directory)}")
        raise
    distributed.leave()
    if is_first:
        following = after_run(directory, is_new=True)
        show({**result, "run": str(directory)}, text(result, directory, following), as_json=json)


def _tell_data(run: Run) -> None:
    """Say what was left out of the data, and how many samples the rarest class of files has."""
    import numpy as np

    from presplit.train.data import DATASETS

    for sentence in (*run.notes, *run.doubts):
        say(sentence)
    for sentence in shortened([f"left out: {each}" for each in run.data.left_out]):
        say(sentence)
    if run.data.left_out:
        say(f"{len(run.data.left_out):,} bad files are left out of {run.data.name}")
    if run.spec.data.name in DATASETS and not run.data.left_out:
        return
    counts = np.bincount(run.data.train.y, minlength=len(run.data.labels))
    rarest, commonest = int(counts.argmin()), int(counts.argmax())
    spread = f"from {counts[rarest]:,} of {run.data.labels[rarest]} to {counts[commonest]:,} of "
    spread += run.data.labels[commonest]
    if counts[rarest] == counts[commonest]:
        spread = f"{counts[rarest]:,} of each"
    say(
        f"{len(run.data.train):,} samples of {len(counts)} classes to train with, "
        f"{len(run.held_out):,} of them held out, and {len(run.data.test):,} to test with; {spread}"
    )


def _has_state(directory: Path) -> bool:
    """Whether a training that has ended early, of the net or of its teacher, can go on."""
    from presplit.train import runs

    unfinished = directory / runs.UNFINISHED
    teacher = unfinished / runs.TEACHER
    folders = (unfinished, teacher / runs.UNFINISHED, teacher)
    return any((folder / name).exists() for folder in folders for name in (runs.STATE, runs.MODEL))


def _chosen(
    spec: Path | None,
    said: dict[str, Any],
    changes: list[str],
    out: Path | None,
    *,
    force: bool,
    resume: bool,
) -> tuple[Spec, Path]:
    """What is trained, and the directory of its run."""
    from presplit.core.spec import Spec
    from presplit.train import runs

    if force and resume:
        raise SpecError("--resume goes on and --force begins anew: give one of them")
    if not resume:
        asked = _resolved(spec, said, changes)
        return asked, place_of(out, asked.name, force=force)
    says_what = bool(spec or said or changes)
    asked = _resolved(spec, said, changes) if says_what else Spec()
    begun = run_to_resume(out, None if asked.name == Spec().name else asked.name)
    if begun is not None:
        return _resolved(spec or runs.spec_file(begun), said, changes), begun
    if not says_what:
        where = f"{out} holds no run" if out else f"no run in {RUNS}/ was interrupted"
        raise SpecError(
            f"--resume: {where} to go on with, and nothing says what to train: name the run in "
            "--out, or a spec"
        )
    directory = out or RUNS / asked.name
    if runs.spec_file(directory) is None:
        tell(f"{directory} holds no run to go on with: this one begins there")
    return asked, directory


def _resolved(spec: Path | None, said: dict[str, Any], changes: list[str]) -> Spec:
    """The spec in a file, or an empty one, with what the options said and ``--set`` on top.

    What neither says is as in the run that it starts from.
    """
    from presplit.core.spec import assigned, read_tables, spec_from
    from presplit.train.runs import laid_on_start

    raw = read_tables(spec) if spec else {}
    if "model" in said:  # another net than the file's: what the file says of its own goes
        raw = {key: value for key, value in raw.items() if key != "model"}
    with context(str(spec)) if spec else contextlib.nullcontext():
        over = assigned(changes, over=said)
        return spec_from(laid_on_start(raw, over), over=over)


def _net(model: str | None, layers: list[int]) -> dict[str, Any]:
    """The net that the options name; an MLP's input is padded to its first size."""
    if model is not None and layers:
        raise SpecError("--model and --layers name two nets: give one of them")
    if model is not None:
        return {"model.kind": "own", "model.factory": model}
    if layers:
        return {"model.kind": "mlp", "model.layers": layers, "data.pad_to": layers[0]}
    return {}


def _tables(named: dict[str, Any]) -> dict[str, Any]:
    """What is not None, as nested tables.

    >>> _tables({"training.epochs": 3, "training.recipe": None, "seed": 1})
    {'training': {'epochs': 3}, 'seed': 1}
    """
    tables: dict[str, Any] = {}
    for key, value in named.items():
        section, _, field = key.rpartition(".")
        if value is not None and section:
            tables.setdefault(section, {})[field] = value
        elif value is not None:
            tables[field] = value
    return tables


def text(result: dict[str, Any], directory: Path, following: str) -> str:
    """A run's result for people, and the command that comes next."""
    zeros = f", {result['padding']:,} zeros added to each sample" if result["padding"] else ""
    lines = [f"{result['weights']:,} weights{zeros}; test accuracy:"]
    if result["outputs"] > result["classes"]:
        lines.insert(
            0,
            f"The net has {result['outputs']:,} outputs for {result['classes']} classes; the "
            "others are idle.",
        )
    lines += [f"  exit {name}: {_accuracy(result, name)}" for name in result["accuracy"]]
    for _, rows in itertools.groupby(result["thresholds"], key=lambda row: row["thresholds"]):
        lines.append(
            f"  {_routed(next(rows), result['policy'])}"
        )  # the other goals, less strict, ask for the same
    return "\n".join([*lines, f"Run: {directory}", f"Next: {following}"])


def _accuracy(result: dict[str, Any], name: str) -> str:
    """The accuracy of an exit, and where classes are uneven that with every class alike."""
    share = f"{100 * result['accuracy'][name]:.2f} %"
    if not result["is_uneven"]:
        return share
    return f"{share} ({100 * result['balanced_accuracy'][name]:.2f} % if every class counts alike)"


def _routed(row: dict[str, Any], policy: str) -> str:
    """What a goal was, what it gives and costs, and where samples leave."""
    ((name, value),) = row["goal"].items()
    goal = {
        "max_drop": f"at most {100 * value:g} points lost",
        "accuracy": f"at least {100 * value:g} % right",
        "macs": f"at most {value:,.0f} MACs an answer",
        "offload": f"at most {100 * value:g} % to the last exit",
    }[name]
    cost = f" for {row['macs']:,.0f} MACs an answer" if "macs" in row else ""
    leave = [
        f"{row['shares'][name]:.1%} leave at {name} ({policy} from {least:.4f} on)"
        for name, least in row["thresholds"].items()
    ]
    held = f"{goal} on held-out samples ({row['validation_accuracy']:.2%} right there)"
    return f"{held}: {row['accuracy']:.2%} right on the test set{cost}, {', '.join(leave)}"
