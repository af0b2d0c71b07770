"""Samples from lines of JSON, as another program writes them to standard input.

A line is one object: ``id`` (a text or a whole number, optional) and one of ``image`` (the path of
an image, sound or .npy file), ``values`` (nested lists of numbers) and ``base64`` (such a
file).
"""

from __future__ import annotations

import binascii
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import msgspec

from presplit.core.errors import InputError
from presplit.core.types import Floats
from presplit.runtime.feeding.sample import Sample, broken, mark_of
from presplit.runtime.feeding.taking import Taking

MOST_LINE_BYTES = 2**26
KINDS = ("image", "values", "base64")


class Line(msgspec.Struct, forbid_unknown_fields=True):
    """What a line says; `KINDS` are three ways to give the sample, of which it has one."""

    id: str | int | None = None
    image: str | None = None
    values: list[object] | None = None
    base64: str | None = None


def samples_of_lines(stream: IO[bytes], taking: Taking) -> Iterator[Sample]:
    """A sample for each line that is not empty, as soon as it is there."""
    number = 0
    while line := stream.readline(MOST_LINE_BYTES):
        number += 1
        if len(line) == MOST_LINE_BYTES and not line.endswith(b"\n"):
            _skip_rest(stream)
            problem = f"expected a line of at most {MOST_LINE_BYTES:,} bytes"
            yield broken(f"line {number}", {"line": number}, problem)
        elif line.strip():
            yield _sample(line, number, taking)


def _sample(raw: bytes, number: int, taking: Taking) -> Sample:
    named: dict[str, object] = {"line": number}
    try:
        line = msgspec.json.decode(raw, type=Line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return broken(f"line {number}", named, f"not a sample as JSON: {error}")
    if line.id is not None:
        named = {"id": line.id}
    id_ = f"line {number}" if line.id is None else str(line.id)
    given = [kind for kind in KINDS if getattr(line, kind) is not None]
    if len(given) != 1:
        got = " and ".join(given) or "none"
        return broken(id_, named, f"expected one of {', '.join(KINDS)}, got {got}")
    mark = hashlib.sha256(raw).hexdigest()
    if line.image is not None:
        named["file"] = line.image
        mark = mark_of(Path(line.image))
    return Sample(id_, named, _load(line, taking), mark)


def _load(line: Line, taking: Taking) -> Callable[[], Floats]:
    """What makes the sample of a line."""
    if line.image is not None:
        path = Path(line.image)
        return lambda: taking.file(path)
    if line.values is not None:
        values = line.values
        return lambda: taking.numbers(values)
    text = line.base64 or ""
    return lambda: taking.raw(_decoded(text))


def _decoded(text: str) -> bytes:
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except (binascii.Error, ValueError) as error:
        raise InputError(f"base64: {str(error)[:1].lower()}{str(error)[1:]}") from error


def _skip_rest(stream: IO[bytes]) -> None:
    """Read on to the end of the line."""
    while (rest := stream.readline(MOST_LINE_BYTES)) and not rest.endswith(b"\n"):
        pass
