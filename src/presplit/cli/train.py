"""``presplit train``: train a spec, or the net that the options describe, into a run directory."""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from presplit.cli.options import Json, say, show

if TYPE_CHECKING:
    from presplit.train import Epoch


def train(
    spec: Annotated[
        Path | None, typer.Argument(help="A spec.toml; without one the options say what to train.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Your own model as module:factory; its code is imported and runs."),
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
    family: Annotated[
        str | None, typer.Option(help="Pattern family: grouped, tiled, biregular, ...")
    ] = None,
    after: Annotated[
        list[str], typer.Option(help="Submodules that an early exit follows, or auto.")
    ] = [],
    data: Annotated[
        str | None,
        typer.Option(help="digits, mnist, cifar10, or a path: .npz, .csv, a folder of images."),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="How to train: default, or paper (arXiv 2407.11763).")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training part.")] = None,
    seed: Annotated[
        int | None,
        typer.Option(help="The same seed gives the same run, on one machine and thread count."),
    ] = None,
    set: Annotated[
        list[str], typer.Option(metavar="KEY=VALUE", help="Change one key of the spec.")
    ] = [],
    out: Annotated[Path | None, typer.Option(help="Run directory; default runs/NAME.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out, or in the spec's own.")
    ] = False,
    json: Json = False,
) -> None:
    """Train a net into a run directory: spec, metrics, checkpoint, result."""
    from presplit.cli.own_model import aside, load
    from presplit.core.spec import read_spec, spec_from
    from presplit.train import runs
    from presplit.train.fitting import distributed

    changes = [
        *_changes(
            model, layers, fan_out, density, budget, family, after, data, recipe, epochs, seed
        ),
        *set,
    ]
    if resume and out and not spec and not changes:
        spec = out / "spec.json"
    resolved = read_spec(spec, set=changes) if spec else spec_from({}, set=changes)
    directory = out or Path("runs") / resolved.name
    if distributed.rank() == 0 and (directory / "spec.json").exists() and not resume:
        say(
            f"{directory} holds a run, which this one replaces; a bundle that was exported from it "
            "stays"
        )
    if distributed.rank() == 0 and resume and not (directory / "spec.json").exists():
        say(f"{directory} holds no run to go on with: this one begins there")
    try:
        with aside(), _progress(runs.recipe_of(resolved.training).epochs) as on_epoch:
            result = runs.train(resolved, directory, own=load, resume=resume, on_epoch=on_epoch)
    except KeyboardInterrupt:
        if distributed.rank() == 0 and any(
            (place / runs.STATE).exists() for place in (directory, directory / runs.TEACHER)
        ):
            say(
                "stopped; the same command with --resume goes on after the last epoch (--out "
                f"{directory})"
            )
        raise
    distributed.leave()
    if distributed.rank() == 0:
        show({**result, "run": str(directory)}, text(result, directory), as_json=json)


def _changes(
    model: str | None,
    layers: list[int],
    fan_out: list[int],
    density: float | None,
    budget: float | None,
    family: str | None,
    after: list[str],
    data: str | None,
    recipe: str | None,
    epochs: int | None,
    seed: int | None,
) -> list[str]:
    """The options as assignments to the spec's keys; an MLP's input is padded to its first size."""
    named: dict[str, Any] = {
        "data.name": data,
        "sparsity.density": density,
        "sparsity.budget": budget,
        "sparsity.family": family,
        "training.recipe": recipe,
        "training.epochs": epochs,
        "seed": seed,
    }
    changes = [f"{key}={value}" for key, value in named.items() if value is not None]
    if model is not None:
        changes += ['model.kind="own"', f"model.factory={model}"]
    if layers:
        changes += ['model.kind="mlp"', f"model.layers={layers}", f"data.pad_to={layers[0]}"]
    if fan_out:
        changes.append(f"sparsity.fan_out={fan_out}")
    if after:
        changes.append(f"exits.after={after}")
    return changes


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Callable[[Epoch], None]]:
    """A bar on a terminal, a line an epoch elsewhere."""
    if not sys.stderr.isatty():
        yield lambda epoch: say(_line(epoch, total))
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("first epoch", total=total)
        yield lambda epoch: bar.update(
            task, completed=epoch.number, description=_line(epoch, total)
        )


def _line(epoch: Epoch, total: int) -> str:
    seen = " ".join(f"{100 * share:.2f} %" for share in epoch.accuracy)
    return (
        f"epoch {epoch.number:3d}/{total}  loss {epoch.loss:.4f}  validation {seen}  "
        f"{epoch.seconds:.1f} s an epoch"
    )


def text(result: dict[str, Any], directory: Path) -> str:
    """A run's result for people."""
    zeros = f", {result['padding']:,} zeros added to each sample" if result["padding"] else ""
    lines = [f"{result['weights']:,} weights{zeros}; test accuracy:"]
    if result["outputs"] > result["classes"]:
        lines.insert(
            0,
            f"The net has {result['outputs']:,} outputs for {result['classes']} classes; the "
            "others are idle.",
        )
    lines += [f"  exit {name}: {100 * share:.2f} %" for name, share in result["accuracy"].items()]
    for _, rows in itertools.groupby(result["thresholds"], key=lambda row: row["thresholds"]):
        lines.append(
            f"  {_routed(next(rows), result['policy'])}"
        )  # the other goals, less strict, ask for the same
    return "\n".join([*lines, f"Run: {directory}. Next: presplit export {directory}"])


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
