"""The values of a dense net in a file that Presplit or anybody else wrote.

A ``.safetensors`` file, or what ``torch.save`` made of a ``state_dict``, bare or in the checkpoint
of a training script. Reading one never runs code that it names; whether its values are those of the
net at hand, name by name, is checked before any is used.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from presplit.core.errors import DataError
from presplit.train.fitting import checkpoint, fingerprint

WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
"""Keys under which training scripts keep the values of the net beside epochs and optimisers."""
DERIVED = ("num_batches_tracked", "standardise.mean", "standardise.deviation")
"""Ends of names that may be missing: a counter, and what is known from the training set."""
SHOWN = 3
"""Names of each kind that a message shows."""


@dataclass(frozen=True)
class Weights:
    """Tensors by name, and what the net that they are of is recognised by, if it is known."""

    tensors: Mapping[str, Tensor]
    evidence: Mapping[str, Tensor] = field(default_factory=dict)


def read_weights(file: Path) -> Weights:
    """The weights in ``file``, without those of early exits of ours.

    Raises `DataError` if it cannot be read without running code, or holds anything but tensors.
    """
    if not file.is_file():
        raise DataError(
            f"{file}: no such run or file; a finished run, a .safetensors file or a saved "
            "state_dict is expected"
        )
    tensors = _from_safetensors(file) if _is_safetensors(file) else _from_torch(file)
    evidence = fingerprint.apart(tensors)
    own = {name.removeprefix("model."): value for name, value in _backbone(tensors)}
    return Weights(own or tensors, _of_the_last_exit(evidence))


def fill(model: nn.Module, weights: Weights, shape: tuple[int, ...]) -> None:
    """Give ``model`` the values ``weights``; ``shape`` is that of a sample of its data.

    A prefix that all names share, such as the ``module.`` of `DataParallel`, is passed over. Raises
    `DataError` if a name is missing, one too many or of another shape, or if the net that they were
    saved from took other samples or answered otherwise.
    """
    seen = weights.evidence.get(f"{fingerprint.BEGIN}shape")
    if seen is not None and tuple(seen.tolist()) != shape:
        raise DataError(
            f"its net takes samples of shape {tuple(seen.tolist())}, and those here are of shape "
            f"{shape}"
        )
    places = {n: each for n, each in model.state_dict().items() if isinstance(each, Tensor)}
    prefix = _prefix(weights.tensors, places)
    given = {name.removeprefix(prefix): value for name, value in weights.tensors.items()}
    if len(given) < len(weights.tensors):
        raise DataError(f"it holds names with and without {prefix!r}: save one net in a file")
    _refuse_sparse(given, places)
    _refuse_another_net(given, places)
    for name, value in given.items():
        _refuse_other_numbers(name, value, places[name])
    model.load_state_dict(given, strict=False)
    if fingerprint.is_another(model, weights.evidence):
        raise DataError(
            "its values give other answers than when they were saved: the net's code has changed "
            "since; bring it back, or train the net anew"
        )


def _is_safetensors(file: Path) -> bool:
    """By its name or its first bytes: a length, and the brace that opens the header."""
    try:
        with file.open("rb") as opened:
            return file.suffix == ".safetensors" or opened.read(9)[8:] == b"{"
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from error


def _from_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        return checkpoint.read_tensors(file)[0]
    except DataError as error:
        raise DataError(
            f"{file}: not a safetensors file, or a damaged one ({error.__cause__}); save it again"
        ) from error


def _from_torch(file: Path) -> dict[str, Tensor]:
    """What ``torch.save`` wrote, if it is a ``state_dict`` or holds one."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of TorchScript, which is refused below
            found: Any = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # each layer of torch's reader raises its own, down to KeyError
        if "nsupported global" in str(error) or "TorchScript" in str(error):
            raise DataError(
                f"{file}: it holds more than tensors, a whole module perhaps, and reading that "
                "would run code; save only values, torch.save(model.state_dict(), FILE), and give "
                "the code with --model"
            ) from error
        raise DataError(
            f"{file}: neither a .safetensors file nor what torch.save writes, or damaged; save "
            "the net's values again, as torch.save(model.state_dict(), FILE)"
        ) from error
    while isinstance(found, dict) and (inner := [k for k in WRAPPERS if _is_table(found, k)]):
        found = found[inner[0]]
    if not isinstance(found, dict) or not found:
        kind = type(found).__name__
        raise DataError(f"{file}: a state_dict, a tensor for each name, is expected, got {kind}")
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise DataError(
                f"{file}: a state_dict, a tensor for each name, is expected, or one under "
                f"{', '.join(WRAPPERS)}; got {name!r}: {type(value).__name__}"
            )
    return {name: value.detach() for name, value in found.items()}


def _is_table(found: dict[Any, Any], key: str) -> bool:
    return isinstance(found.get(key), dict)


def _backbone(tensors: Mapping[str, Tensor]) -> list[tuple[str, Tensor]]:
    """What is not of the early exits, if the tensors are those of a net of ours that has some."""
    heads = [name for name in tensors if name.startswith("heads.")]
    own = [(name, each) for name, each in tensors.items() if name.startswith("model.")]
    return own if heads and len(own) + len(heads) == len(tensors) else []


def _of_the_last_exit(evidence: dict[str, Tensor]) -> dict[str, Tensor]:
    """``evidence`` of a net with exits as if it had only its own classifier, which is the last."""
    answers = [name for name in evidence if name.removeprefix(fingerprint.BEGIN).isdecimal()]
    kept = {name: value for name, value in evidence.items() if name not in answers}
    if answers:
        kept[f"{fingerprint.BEGIN}0"] = evidence[f"{fingerprint.BEGIN}{len(answers) - 1}"]
    return kept


def _prefix(given: Iterable[str], places: Mapping[str, Tensor]) -> str:
    """What stands before the names of ``places`` in those that are given.

    >>> _prefix(["module.fc.weight", "module.fc.bias"], dict.fromkeys(["fc.weight", "fc.bias"]))
    'module.'
    """
    found: Counter[str] = Counter()
    for name in given:
        parts = name.split(".")
        for first in range(len(parts)):
            if ".".join(parts[first:]) in places:
                found[".".join([*parts[:first], ""])] += 1
    prefix, count = max(found.items(), key=lambda item: item[1], default=("", 0))
    return prefix if 2 * count > len(places) else ""  # chance names are no prefix


def _refuse_sparse(given: Mapping[str, Tensor], places: Mapping[str, Tensor]) -> None:
    for name in given:
        layer = name.removesuffix(".index")
        if name not in places and layer != name and f"{layer}.values" in given:
            raise DataError(
                f"its layer {layer} is sparse already: a dense net is expected, such as the parent "
                "that it learned from"
            )


def _refuse_another_net(given: Mapping[str, Tensor], places: Mapping[str, Tensor]) -> None:
    """Raise `DataError` unless the names and shapes ``given`` are those of ``places``."""
    stored = {places[name].data_ptr() for name in given if name in places}
    missing = [
        name
        for name, place in places.items()
        # values that two layers share are often saved once
        if name not in given and not name.endswith(DERIVED) and place.data_ptr() not in stored
    ]
    strange = [name for name in given if name not in places]
    shapes = [
        f"{name} is {tuple(given[name].shape)}, expected {tuple(place.shape)}"
        for name, place in places.items()
        if name in given and given[name].shape != place.shape
    ]
    problems = [
        f"{what} {_few(names)}"
        for what, names in (("it lacks", missing), ("it has also", strange), ("its", shapes))
        if names
    ]
    if problems:
        raise DataError(
            f"it is of another net than [model] and [data] describe: {'; '.join(problems)}; "
            "describe its own net, or take over what fits in a factory of your own, --model"
        )


def _few(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _refuse_other_numbers(name: str, value: Tensor, place: Tensor) -> None:
    """Raise `DataError` for numbers that cannot stand in ``place``."""
    is_plain = value.layout == torch.strided and not value.is_quantized and not value.is_meta
    if not is_plain or value.is_floating_point() != place.is_floating_point():
        expected = str(place.dtype).removeprefix("torch.")
        got = str(value.dtype).removeprefix("torch.")
        raise DataError(f"{name}: plain {expected} numbers are expected, got {got}")
    if value.is_floating_point() and not bool(torch.isfinite(value).all()):
        raise DataError(f"{name}: it holds numbers that are not finite; save a net that is well")
