"""The sections of a spec: what each may say, in which range, and what contradicts itself.

Names of data sets, pattern families, layers and profiles stay names here; whoever uses them looks
them up on its shelf.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from presplit.core.errors import SpecError
from presplit.core.recipe import Size, Text, Training
from presplit.core.value import Deadline, NonNegative, Positive, Share, Value

NAME_PATTERN = r"\A[a-z0-9][a-z0-9_-]{0,62}\Z"
"""What a net may be called.

Its name becomes part of file names and of the name that a server hosts.
"""
NAME_WORDS = "expected small letters, digits, - and _, at most 63, the first a letter or digit"
"""The same in words."""

Name = Annotated[str, Meta(pattern=NAME_PATTERN)]
Seed = Annotated[int, Meta(ge=0, le=2**32 - 1)]
Density = Annotated[float, Meta(gt=0, le=1)]
Channels = Annotated[int, Meta(ge=0, le=2**31 - 1)]


class Data(Value, frozen=True):
    """``[data]``: the samples, and how they are prepared.

    It also says which share of the training set is held out for validation, and what the flat input
    of an MLP is.
    """

    name: Text = "digits"
    """A data set on the shelf, or the path of an .npz, .csv or .zip file or a folder.

    The shelf has "digits", "mnist", "cifar10", "clothing" and "fsdd".
    """
    validation: Annotated[float, Meta(gt=0, lt=0.5)] = 0.1
    pad_to: Size | None = None
    """Flatten each image and add zeros up to so many features."""
    size: Size | None = None
    """Pixels: each image of a folder or zip is scaled, and its middle ``size`` x ``size`` taken.

    None: all have one size.
    """
    grey: bool = False
    """The images of a folder or zip are read with one channel."""
    rate: Annotated[int, Meta(ge=1000, le=192_000)] | None = None
    """Hz: each sound of a folder or zip is brought to it.

    None: all have one rate.
    """
    length_s: Annotated[float, Meta(gt=0, le=3600)] | None = None
    """Seconds: the middle of each longer sound is taken, a shorter one lies in silence.

    None: the length of the longest to train with.
    """
    skip_bad: bool = False
    """Files of a folder or zip that are not what is expected are left out, and counted."""
    standardise: bool = False
    """The net begins by taking each column's mean away and dividing by its deviation.

    Both are those of the training set.
    """


class Mlp(Value, frozen=True, tag_field="kind", tag="mlp"):
    """``[model]`` with ``layers``: a multi-layer perceptron, input and classes included."""

    layers: Annotated[tuple[Size, ...], Meta(min_length=2)]


class Cnn(Value, frozen=True, tag_field="kind", tag="cnn"):
    """``[model]`` with ``width``: the small convolutional net."""

    width: Size = 32
    bottleneck: Size = 8
    """Channels at the narrow place."""
    tail: Size | None = None
    """Channels of the two convolutions behind it; default four times the width."""


class OwnModel(Value, frozen=True, tag_field="kind", tag="own"):
    """``[model]`` with ``factory``, ``module:factory``: a net of one's own.

    The spec only names the code; the command line imports it, on the user's word there.
    """

    factory: Text


Model = Mlp | Cnn | OwnModel


class ByDensity(Value, frozen=True, tag_field="kind", tag="density"):
    """``[sparsity]`` with ``density`` for all layers, or ``layers``, or both.

    ``layers`` holds the densities of those whose name matches a glob. ``nearest``: where the family
    has not exactly the density for a layer, it takes the nearest that it has; else a layer that is
    named so is an error, and the others stay dense.
    """

    density: Density | None = None
    layers: dict[Text, Density] = {}
    family: Text = "grouped"
    nearest: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.density is None and not self.layers:
            raise SpecError("ByDensity.density: expected it, or layers, got neither")


class ByBudget(Value, frozen=True, tag_field="kind", tag="budget"):
    """``[sparsity]`` with ``budget``: what all layers together may cost, a share of the dense net.

    ``unit`` says of its weights, multiplications or bytes; it is divided by ``profile`` and met
    within ``tolerance``, or without one as nearly as the family can.
    """

    budget: Density
    unit: Literal["weights", "macs", "bytes"] = "weights"
    profile: Literal["uniform", "uniform+", "erk", "early_sparse"] = "erk"
    tolerance: Density | None = None
    family: Text = "grouped"


class ByFanOut(Value, frozen=True, tag_field="kind", tag="fan_out"):
    """``[sparsity]`` with ``fan_out``: the out-degree of each junction of an MLP.

    It is the vocabulary of arXiv 2407.11763, of biregular patterns.
    """

    fan_out: Annotated[tuple[Size, ...], Meta(min_length=1)]
    family: Literal["biregular"] = "biregular"


Sparsity = ByDensity | ByBudget | ByFanOut


class Start(Value, frozen=True):
    """``[start]``: a trained dense net, whose values this one begins with.

    ``net`` is the directory of a finished run, or a file of weights: ``.safetensors``, or a
    ``state_dict`` that ``torch.save`` wrote. With ``[sparsity]``, ``values`` are where a sparse
    layer's come from (see `presplit.train.sparsify`): "taken" from the net where connections exist,
    "fitted" to what its layers give, or "fresh"; ``connections`` are "chosen" by what those of the
    net are worth, or "drawn". All that is not sparse is the net's; early exits are drawn anew.
    """

    net: Text
    values: Literal["taken", "fitted", "fresh"] = "taken"
    connections: Literal["chosen", "drawn"] = "chosen"


class Exits(Value, frozen=True):
    """``[exits]``: which modules an early exit follows, and what the loss of each exit counts.

    ``weights`` has one number for each early exit (the net's own classifier counts 1); empty leaves
    them to training, "auto" weighs each exit by what its answers cost. ``policy`` scores how sure
    an exit is. ``hidden``: channels of a convolution that each exit has, 0 for none, or one number
    for each.
    """

    after: Annotated[tuple[Text, ...], Meta(min_length=1)]
    weights: tuple[Positive, ...] | Literal["auto"] = ()
    policy: Text = "confidence"
    hidden: Channels | tuple[Channels, ...] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.after)) < len(self.after):
            raise SpecError(f"Exits.after: expected different names, got {list(self.after)}")
        if self.weights not in ((), "auto") and len(self.weights) != len(self.after):
            raise SpecError(
                f"Exits.weights: expected one for each of {list(self.after)}, got "
                f"{list(self.weights)}"
            )
        many = self.hidden if isinstance(self.hidden, tuple) else None
        if many is not None and "auto" not in self.after and len(many) != len(self.after):
            raise SpecError(
                f"Exits.hidden: expected one number, or one for each of {list(self.after)}, got "
                f"{list(many)}"
            )


class Planning(Value, frozen=True):
    """``[plan]``: for which profiles the net is planned, and what a plan must keep to.

    The limits are those of `presplit.plan.Limits`: seconds, shares in 0..1, joules and bytes. What
    is None is said when planning, or left to its default.
    """

    device: Text | None = None
    link: Text | None = None
    server: Text | None = None
    deadline_s: Deadline | None = None
    reliability: Share | None = None
    min_accuracy: Share | None = None
    max_drop: Share | None = None
    confidence: Share | Literal["none"] | None = None
    max_energy_j: NonNegative | None = None
    max_memory_bytes: NonNegative | None = None
    max_up_bytes: NonNegative | None = None


class Spec(Value, frozen=True):
    """A whole run.

    Without ``sparsity`` the net is dense, without ``exits`` it has only its own classifier, without
    ``start`` its values are drawn.
    """

    name: Name = "net"
    seed: Seed = 0
    data: Data = Data()
    model: Model = Cnn()
    start: Start | None = None
    sparsity: Sparsity | None = None
    exits: Exits | None = None
    training: Training = Training()
    plan: Planning | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        layers = self.model.layers if isinstance(self.model, Mlp) else ()
        if self.data.pad_to and self.data.pad_to not in layers[:1]:
            expected = f"the first of model.layers, {layers[0]}" if layers else "an mlp"
            raise SpecError(f"data.pad_to: expected {expected}, got {self.data.pad_to}")
        if isinstance(self.sparsity, ByFanOut):
            _refuse_degrees(self.sparsity.fan_out, layers)
        if self.start is not None and self.sparsity is None:
            _refuse_choices(self.start)


SECTIONS: dict[str, tuple[type[Value], ...]] = {
    "data": (Data,),
    "model": (Mlp, Cnn, OwnModel),
    "start": (Start,),
    "sparsity": (ByDensity, ByBudget, ByFanOut),
    "exits": (Exits,),
    "training": (Training,),
    "plan": (Planning,),
}
"""The sections of a spec; one of several kinds is told by its ``kind``, or by the keys it has."""


def _refuse_choices(start: Start) -> None:
    """Raise `SpecError` for what ``start`` says of sparse layers where there are none."""
    for key, said, usual in (
        ("values", start.values, "taken"),
        ("connections", start.connections, "chosen"),
    ):
        if said != usual:
            raise SpecError(
                f"start.{key}: {said!r} is said of sparse layers, and there are none: add "
                f"[sparsity], or leave it at {usual!r}"
            )


def _refuse_degrees(fan_out: tuple[int, ...], layers: tuple[int, ...]) -> None:
    """Raise `SpecError` unless there is one out-degree for each junction that can be."""
    if len(fan_out) != len(layers) - 1:
        junctions = f"one for each of the {len(layers) - 1} junctions of model.layers"
        expected = junctions if layers else "an mlp"
        raise SpecError(f"sparsity.fan_out: expected {expected}, got {list(fan_out)}")
    for number, (degree, n_out) in enumerate(zip(fan_out, layers[1:], strict=True)):
        if degree > n_out:
            raise SpecError(
                f"sparsity.fan_out[{number}]: expected 1..{n_out}, the next layer's size, got "
                f"{degree}"
            )
