"""How fast a net is in int8, dense and sparse, beside float32 and ONNX Runtime's own quantiser.

ResNet-8 at batch 1, one thread, in ONNX Runtime. Weights are not trained: they change no time. The
pieces of a bundle are joined into one model, as they run; the peer is ``quantize_static`` on the
same net in one piece, with the same samples (https://onnxruntime.ai, "Quantize ONNX models").
"""

from __future__ import annotations

import logging
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from benchmarks._timing import medians, relative_error
from presplit.runtime.engines.onnxruntime import Engine
from presplit.train import export, sparsify, to_onnx
from presplit.train.zoo import resnet8

Array = npt.NDArray[Any]
DENSITIES = (1.0, 1 / 4, 1 / 8)
IMAGES = 4
"""So few that no form is refused: what is not trained gives all images nearly the same logits."""
CLOSE = 0.1
"""Of the largest logit: what 8-bit numbers may be off."""
SLOWER = 1.05
"""What cutting may cost against one piece: noise."""


def run(quick: bool) -> dict[str, Any]:
    """One row for each width, density and form; ``quick`` has one width and runs shorter."""
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)  # the peer warns of what it leaves as it is
    rows: list[dict[str, Any]] = []
    for width in (64,) if quick else (32, 64, 128):
        rows += _of_width(width, 2.0 if quick else 20.0)
    peer = {(r["width"], r["density"]): r["seconds"] for r in rows if r["form"] == "ort int8"}
    ratios = [r["seconds"] / peer[r["width"], r["density"]] for r in rows if r["form"] == "int8"]
    worst, error = max(ratios), max(r["max_rel_err"] for r in rows)
    checks = [
        {
            "name": "int8 against ONNX Runtime's own in one piece, slowest",
            "value": worst,
            "target": f"<= {SLOWER}",
            "ok": worst <= SLOWER,
        },
        {"name": "largest error", "value": error, "target": f"<= {CLOSE}", "ok": error <= CLOSE},
        {"name": "the same, median", "value": statistics.median(ratios), "target": "", "ok": True},
    ]
    return {"rows": rows, "checks": checks}


def _of_width(width: int, seconds: float) -> list[dict[str, Any]]:
    """The rows of one width, all timed in turn."""
    x = np.random.default_rng(0).random((IMAGES, 3, 32, 32), dtype=np.float32)
    engines: dict[str, Engine] = {}
    errors: dict[str, float] = {}
    for density in DENSITIES:
        expected: Array | None = None
        for form, engine in _engines(width, density, x):
            (found,) = engine.run({engine.inputs[0]: x}).values()
            expected = found if expected is None else expected
            engines[f"{density} {form}"] = engine
            errors[f"{density} {form}"] = relative_error(found, expected)
    one = x[:1]
    works = {
        name: lambda engine=engine: engine.run({engine.inputs[0]: one})
        for name, engine in engines.items()
    }
    found_s = medians(works, seconds=seconds)
    dense = found_s["1.0 float32"]
    return [
        {
            "width": width,
            "density": float(name.split(" ", 1)[0]),
            "form": name.split(" ", 1)[1],
            "seconds": taken,
            "times_as_fast_as_dense_float32": dense / taken,
            "max_rel_err": errors[name],
        }
        for name, taken in found_s.items()
    ]


def _engines(width: int, density: float, x: Array) -> Iterator[tuple[str, Engine]]:
    """The net in each form, float32 first."""
    torch.manual_seed(0)
    net: nn.Module = resnet8(width=width)
    if density < 1:
        net = sparsify(net, density=density)
    net = net.eval()
    with tempfile.TemporaryDirectory() as folder:
        bundle = export(net, x, f"{folder}/net.bundle", forms=("float32", "int8"))
        for form in bundle.forms:
            yield form, Engine(bundle.runnable(0, bundle.net.last, form=form).onnx)
        yield "ort int8", Engine(_peer(net, x, Path(folder)))


def _peer(net: nn.Module, x: Array, folder: Path) -> bytes:
    """The net quantised by ONNX Runtime itself, after its own preparation."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    model = to_onnx(net, torch.from_numpy(x[:1].copy()))
    name = model.graph.input[0].name
    plain, ready, made = (folder / f"{each}.onnx" for each in ("plain", "ready", "made"))
    plain.write_bytes(model.SerializeToString())

    class Samples(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(x)

        def get_next(self) -> dict[str, Array] | None:
            sample = next(self.left, None)
            return None if sample is None else {name: sample[None]}

    quant_pre_process(plain, ready, skip_symbolic_shape=True)
    quantize_static(
        ready,
        made,
        Samples(),
        per_channel=True,
        reduce_range=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    return made.read_bytes()
