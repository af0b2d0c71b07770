"""Messages whose larger part is the same every time: that part is made once.

A message of protobuf is its fields one after another, in any order, and two messages behind each
other are one that has the fields of both. So a request is a beginning that is kept, and behind it
what is new: id and values. Making all anew takes several times as long, most of all after a pause,
when the processor has forgotten the code.
"""

from __future__ import annotations

import functools
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from presplit.runtime.hosted import Form
from presplit.runtime.wire import messages
from presplit.runtime.wire.tensors import datatype_of, little_endian
from presplit.runtime.wire.words import EXIT_KEY, SERVER_S_KEY, WHY_KEY

KEPT = 256
"""So many beginnings are kept; a model has one for each form of its tensors."""
VERSION = "1"
"""The one version of every model: another model has another hash, and so another name."""

# Fields of ModelInferRequest and ModelInferResponse, whose values are lengths and bytes.
_ID, _REQUEST_VALUES, _REPLY_VALUES = b"\x1a", b"\x3a", b"\x32"


def request(model: str, request_id: str, name: str, array: npt.NDArray[Any]) -> bytes:
    r"""A ModelInferRequest of the tensor ``array`` called ``name``.

    Raises `InputError` for a dtype that does not travel.

    >>> raw = request("net", "7", "boundary", np.zeros((1, 2), np.int8))
    >>> messages.ModelInferRequest.FromString(raw).raw_input_contents
    [b'\x00\x00']
    """
    usual = usual_request(model, name, array.dtype, array.shape)
    called = request_id.encode()
    values = little_endian(array)
    return b"".join((usual.start, _ID, _length(len(called)), called, usual.middle, values))


@dataclass(frozen=True)
class Usual:
    """A message as it is made here, all but what is new: id and values.

    It is ``start``, ``gap`` bytes that may be anything, an id, ``middle``, values of ``nbytes``.
    """

    start: bytes
    gap: int
    middle: bytes
    nbytes: int

    def parts(self, raw: bytes) -> tuple[str, int] | None:
        """The id in ``raw`` and where its values begin; None if one byte more than these differs.

        Such a message may be as good, and has to be read.
        """
        at = len(self.start) + self.gap
        if not raw.startswith(self.start) or len(raw) < at + 2 or raw[at] != _ID[0]:
            return None
        size = raw[at + 1]
        there = at + 2 + size
        values = there + len(self.middle)
        if len(raw) != values + self.nbytes or not raw.startswith(self.middle, there):
            return None
        request_id = raw[at + 2 : there]
        if size > 127 or not request_id.isascii():
            return None
        return request_id.decode(), values


@functools.lru_cache(KEPT)
def usual_request(model: str, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Usual:
    """What `request` makes of an array of this ``dtype`` and ``shape``.

    >>> usual = usual_request("net", "boundary", np.dtype("int8"), (1, 2))
    >>> raw = request("net", "7", "boundary", np.zeros((1, 2), np.int8))
    >>> usual.parts(raw), len(raw), usual.parts(raw[:-1]), usual.parts(b"")
    (('7', 32), 34, None, None)
    """
    nbytes = math.prod(shape) * dtype.itemsize
    start = _request_start(model, name, dtype, shape)
    return Usual(start, 0, _REQUEST_VALUES + _length(nbytes), nbytes)


@functools.lru_cache(KEPT)
def usual_reply(model: str, form: Form) -> Usual:
    """What `reply` makes of one sample of ``form``; its gap is the time that it took."""
    start = _reply_start(model, form.name, np.dtype(form.dtype), (1, *form.shape))
    return Usual(start, 8, _REPLY_VALUES + _length(form.nbytes), form.nbytes)


def reply(
    model: str, request_id: str, name: str, array: npt.NDArray[Any], server_s: float
) -> bytes:
    """A ModelInferResponse of the tensor ``array`` called ``name`` that took ``server_s`` here."""
    start = _reply_start(model, name, array.dtype, array.shape)
    took, called = struct.pack("<d", server_s), request_id.encode()
    values = little_endian(array)
    length = _length(len(values))
    return b"".join((start, took, _ID, _length(len(called)), called, _REPLY_VALUES, length, values))


def early(exit_name: str, why: str) -> bytes:
    """What follows a reply that ``exit_name`` gave in place of the net's own classifier."""
    told = {
        EXIT_KEY: messages.InferParameter(string_param=exit_name),
        WHY_KEY: messages.InferParameter(string_param=why),
    }
    return messages.ModelInferResponse(parameters=told).SerializeToString()


def _length(left: int) -> bytes:
    """A length as protobuf writes it: seven bits a byte, the lowest first."""
    if left < 128:
        return bytes((left,))
    length = bytearray()
    while left > 127:
        length.append(left & 127 | 128)
        left >>= 7
    length.append(left)
    return bytes(length)


@functools.lru_cache(KEPT)
def _request_start(model: str, name: str, dtype: np.dtype[Any], shape: Sequence[int]) -> bytes:
    """What all requests have in common that ask the same of the same ``model``."""
    tensor = messages.ModelInferRequest.InferInputTensor(
        name=name, datatype=datatype_of(dtype), shape=shape
    )
    return messages.ModelInferRequest(model_name=model, inputs=[tensor]).SerializeToString()


@functools.lru_cache(KEPT)
def _reply_start(model: str, name: str, dtype: np.dtype[Any], shape: Sequence[int]) -> bytes:
    """What all replies of the same ``model`` have in common, up to the seconds they took."""
    output = messages.ModelInferResponse.InferOutputTensor(
        name=name, datatype=datatype_of(dtype), shape=shape
    )
    said = messages.ModelInferResponse(
        model_name=model, model_version=VERSION, outputs=[output]
    ).SerializeToString()
    # Its last eight bytes are the number.
    took = messages.ModelInferResponse(
        parameters={SERVER_S_KEY: messages.InferParameter(double_param=1.0)}
    ).SerializeToString()
    return said + took[:-8]
