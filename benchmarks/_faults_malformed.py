"""Requests that are wrong, by name: what Triton's and OpenVINO Model Server's own tests send.

Each is a change to a request that is right, or bytes that are none, with the status that it must
get. Sources: Triton's qa ``L0_input_validation`` and ``L0_http``, OpenVINO Model Server's
``predict_validation_test``.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from benchmarks._faults import VALUES, good_request
from benchmarks._faults_nets import BOUNDARY
from presplit.bundle import Bundle
from presplit.runtime.wire import messages

INVALID, MISSING, RIGHT = "INVALID_ARGUMENT", "NOT_FOUND", "OK"
NBYTES = 4 * BOUNDARY


class Case(NamedTuple):
    """A request and the name of the status that it must get."""

    name: str
    raw: bytes
    status: str


def cases(bundle: Bundle) -> list[Case]:
    """Every wrong request to the tail from boundary 1 of ``bundle``, and some odd ones."""
    model = bundle.manifest.model_name(1, "float32")
    return [*_changed(model), *_tensors(model), *_values(model), *_bytes(model)]


def _case(name: str, model: str, change: Callable[[Any], object], status: str = INVALID) -> Case:
    """The good request with a ``change``."""
    request = good_request(model)
    change(request)
    return Case(name, request.SerializeToString(), status)


def _with(**fields: Any) -> Callable[[Any], object]:
    """A change of fields of the request itself."""

    def change(request: Any) -> None:
        for key, value in fields.items():
            setattr(request, key, value)

    return change


def _changed(model: str) -> list[Case]:
    """Names, versions, ids, outputs."""
    start = model.partition(".")[0]
    names = {
        "no model name": "",
        "a model that is not here": "resnet",
        "the bundle without a split": start,
        "a split beyond the net": f"{start}.from-99",
        "a split before the net": f"{start}.from--1",
        "a codec that does not exist": f"{model}-float64",
        "another bundle's hash": "small-000000000000.from-1",
        "a name that climbs": "../../etc/passwd",
        "a name with a null": f"{model}\0",
        "a name of 5,000 characters": "m" * 5000,
        "a name in other letters": "ünïcödé-模型",
        "an echo of nothing": "presplit-echo.to-0",
        "an echo beyond all bounds": "presplit-echo.to-999999",
        "a name that is a format": "%s%s%n{0}",
    }
    found = [_case(name, model, _with(model_name=text), MISSING) for name, text in names.items()]
    for name, version in {
        "version 2": "2",
        "a negative version": "-1",
        "a version that is no number": "latest",
        "a version of 5,000 digits": "1" * 5000,
    }.items():
        found.append(_case(name, model, _with(model_version=version), MISSING))
    found += [
        _case("an id of 129 characters", model, _with(id="i" * 129)),
        _case("an output that is not there", model, lambda r: r.outputs.add(name="probabilities")),
        _case("an output without a name", model, lambda r: r.outputs.add()),
        _case("a thousand outputs", model, lambda r: [r.outputs.add(name="o") for _ in range(999)]),
        _case("an exit as output", model, lambda r: r.outputs.add(name="early")),
    ]
    return found


def _tensors(model: str) -> list[Case]:
    """Datatypes, shapes, counts, and typed contents."""
    types = ("FP64", "FP16", "BF16", "INT8", "INT64", "UINT32", "BOOL", "BYTES", "", "fp32", "FP\0")
    found = [
        _case(f"datatype {kind!r}", model, lambda r, kind=kind: _tensor(r, datatype=kind))
        for kind in types
    ]
    shapes = {
        "no shape": [],
        "a shape without batch": [BOUNDARY],
        "a dimension too many": [1, 1, BOUNDARY],
        "a value too many": [1, BOUNDARY + 1],
        "a value too few": [1, BOUNDARY - 1],
        "batch 0": [0, BOUNDARY],
        "batch -1": [-1, BOUNDARY],
        "batch 65": [65, BOUNDARY],
        "a dimension of 0": [1, 0],
        "a dimension of -1": [1, -1],
        "two negative dimensions, product right": [-1, -BOUNDARY],
        "a dimension of 2^62": [2**62, BOUNDARY],
        "a product that overflows to the right one": [2**62 + 1, 4 * BOUNDARY],
        "the smallest integer": [-(2**63), BOUNDARY],
        "dimensions swapped": [BOUNDARY, 1],
        "a thousand dimensions": [1] * 1000,
        "batch 2 with the bytes of 1": [2, BOUNDARY],
    }
    for name, shape in shapes.items():
        found.append(_case(name, model, lambda r, shape=shape: _tensor(r, shape=shape)))
    counts: dict[str, Callable[[Any], object]] = {
        "no input": lambda r: r.ClearField("inputs"),
        "the same input twice": lambda r: r.inputs.append(r.inputs[0]),
        "an input of another name": lambda r: _tensor(r, name="image"),
        "an input without a name": lambda r: _tensor(r, name=""),
        "no raw contents": lambda r: r.ClearField("raw_input_contents"),
        "raw contents twice": lambda r: r.raw_input_contents.append(r.raw_input_contents[0]),
        "raw and typed contents": lambda r: r.inputs[0].contents.fp32_contents.append(1.0),
        "typed contents alone": _typed,
        "typed contents of another type": _typed_otherwise,
        "empty typed contents beside raw": lambda r: r.inputs[0].contents.SetInParent(),
    }
    return found + [_case(name, model, change) for name, change in counts.items()]


def _values(model: str) -> list[Case]:
    """What is in the raw bytes, and how many there are."""
    last = VALUES.copy()
    found = []
    for name, value in {"NaN": np.nan, "infinity": np.inf, "minus infinity": -np.inf}.items():
        last[0, -1] = value
        found.append(_case(f"{name} as the last value", model, _raw(last.tobytes())))
    signalling = VALUES.view(np.uint32).copy()
    signalling[0, 0] = 0x7F800001
    found.append(_case("a signalling NaN", model, _raw(signalling.tobytes())))
    lengths = {
        "no bytes": 0,
        "a byte too few": NBYTES - 1,
        "a byte too many": NBYTES + 1,
        "twice the bytes": 2 * NBYTES,
        "half the bytes": NBYTES // 2,
    }
    found += [_case(name, model, _raw(bytes(size))) for name, size in lengths.items()]
    inner = (2**31 - 1).to_bytes(4, "little") + bytes(NBYTES - 4)
    found.append(_case("BYTES with a length that lies", model, lambda r: _bytes_of(r, inner)))
    for name, value in {"denormals": 1e-42, "the largest float": 3e38, "zeros": 0.0}.items():
        right = np.full_like(VALUES, value if value < 1 else 0)
        right[0, 0] = value
        found.append(_case(name, model, _raw(right.tobytes()), RIGHT))
    return found


def _bytes(model: str) -> list[Case]:
    """Bytes that are no request, or one in a strange spelling."""
    good = good_request(model).SerializeToString()
    deep = b""
    for _ in range(200):
        deep = b"\x2a" + _varint(len(deep)) + deep
    noise = random.Random(0).randbytes
    twice = good + b"\x1a\x06second"  # another id after the first: the last one counts
    unknown = good + b"\xfa\x3f\x04more"
    return [
        Case("a request cut short", good[:-1], INVALID),
        Case("half a request", good[: len(good) // 2], INVALID),
        Case("a length beyond the end", b"\x0a\xff\xff\xff\xff\x07", INVALID),
        Case("a length of 2^64", b"\x0a" + b"\xff" * 9 + b"\x01", INVALID),
        Case("a number that never ends", b"\x08" + b"\xff" * 100, INVALID),
        Case("field 0", b"\x00\x01", INVALID),
        Case("a wire type that does not exist", b"\x0f\x01", INVALID),
        Case("a group that never ends", b"\x0b" * 1000, INVALID),
        Case("a group that ends but never began", b"\x0c", INVALID),
        Case("a name that is no UTF-8", b"\x0a\x02\xff\xfe", INVALID),
        Case("a name with half a surrogate", b"\x0a\x03\xed\xa0\x80", INVALID),
        Case("an id that is no UTF-8", good + b"\x1a\x02\xc3\x28", INVALID),
        Case("messages in messages, 200 deep, of no name", deep, MISSING),
        Case("1,000 random bytes", noise(1000), INVALID),
        Case("JSON", b'{"inputs": [{"name": "boundary"}]}', INVALID),
        Case("HTTP", b"GET / HTTP/1.1\r\n\r\n", INVALID),
        Case("nothing at all", b"", MISSING),
        Case("two ids", twice, RIGHT),
        Case("a field that nobody knows", unknown, RIGHT),
    ]


def _varint(number: int) -> bytes:
    """``number`` as protobuf writes it."""
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])


def _tensor(request: Any, *, shape: list[int] | None = None, **fields: str) -> None:
    """Change the request's one tensor."""
    tensor = request.inputs[0]
    for key, value in fields.items():
        setattr(tensor, key, value)
    if shape is not None:
        tensor.ClearField("shape")
        tensor.shape.extend(shape)


def _raw(raw: bytes) -> Callable[[Any], object]:
    """Other bytes."""

    def change(request: Any) -> None:
        request.raw_input_contents[0] = raw

    return change


def _typed(request: Any) -> None:
    request.ClearField("raw_input_contents")
    request.inputs[0].contents.fp32_contents.extend([1.0] * BOUNDARY)


def _typed_otherwise(request: Any) -> None:
    request.ClearField("raw_input_contents")
    request.inputs[0].contents.CopyFrom(
        messages.InferTensorContents(int64_contents=[2**63 - 1] * BOUNDARY)
    )


def _bytes_of(request: Any, raw: bytes) -> None:
    _tensor(request, datatype="BYTES")
    request.raw_input_contents[0] = raw
