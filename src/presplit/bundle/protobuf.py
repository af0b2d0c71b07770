"""Walking over the bytes of a protobuf message without building it, within a budget.

A reader that builds objects first and looks then has already done what a hostile file asked for.
Here nothing is copied: a field is its number and where its value lies. Source: the encoding as the
Protocol Buffers guide gives it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

VARINT, EIGHT_BYTES, SPAN, FOUR_BYTES = 0, 1, 2, 5
MOST_FIELDS = 3_000_000
"""Fields of one message, at most: some seconds of work."""
_LONGEST_VARINT = 10


class Damaged(Exception):
    """The bytes are no message, or one beyond the budget."""


class Field(NamedTuple):
    """One field: of wire type `VARINT` its ``value``; else its value lies from start to stop."""

    number: int
    wire: int
    value: int
    start: int
    stop: int


class Walker:
    """A message's bytes, and how many fields may still be looked at."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self._left = MOST_FIELDS

    def fields(self, start: int, stop: int) -> Iterator[Field]:
        """The fields in the bytes from ``start`` to ``stop``; raises `Damaged`."""
        at = start
        while at < stop:
            self._left -= 1
            if self._left < 0:
                raise Damaged(f"more than {MOST_FIELDS} fields")
            tag, at = self._varint(at, stop)
            number, wire = tag >> 3, tag & 7
            if wire == VARINT:
                value, after = self._varint(at, stop)
                yield Field(number, wire, value, at, after)
                at = after
                continue
            if wire == SPAN:
                length, at = self._varint(at, stop)
            elif wire in (EIGHT_BYTES, FOUR_BYTES):
                length = 8 if wire == EIGHT_BYTES else 4
            else:
                raise Damaged("a field of a kind that does not exist")
            if not number or length > stop - at:
                raise Damaged("a field is longer than what holds it")
            yield Field(number, wire, 0, at, at + length)
            at += length

    def text(self, field: Field) -> str:
        """The text of a field; raises `Damaged` for none."""
        if field.wire != SPAN:
            raise Damaged("expected a text")
        return self.raw[field.start : field.stop].decode("utf-8", "replace")

    def integers(self, field: Field) -> list[int]:
        """The signed integers of a field that is repeated, packed or not."""
        if field.wire == VARINT:
            return [_signed(field.value)]
        if field.wire != SPAN:
            raise Damaged("expected integers")
        found: list[int] = []
        at = field.start
        while at < field.stop:
            self._left -= 1
            if self._left < 0:
                raise Damaged(f"more than {MOST_FIELDS} fields")
            value, at = self._varint(at, field.stop)
            found.append(_signed(value))
        return found

    def _varint(self, at: int, stop: int) -> tuple[int, int]:
        """The number at ``at``, and where it ends."""
        value = shift = 0
        raw = self.raw
        for place in range(at, min(stop, at + _LONGEST_VARINT)):
            byte = raw[place]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & (2**64 - 1), place + 1
            shift += 7
        raise Damaged("a number without an end")


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value
