"""Walking over the bytes of a protobuf message without building it, within a budget.

A reader that builds objects first and looks then has already done what a hostile file asked for.
Here nothing is copied: a field is its number and where its value lies. Source: the encoding as the
Protocol Buffers guide gives it. Readers differ in what they make of numbers that are longer than
need be or do not fit their type (some drop the upper bits), so all such are damage here: what
passes is read alike by everybody.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

VARINT, EIGHT_BYTES, SPAN, FOUR_BYTES = 0, 1, 2, 5
MOST_FIELDS = 3_000_000
"""Fields of one message, at most: some seconds of work."""
_LONGEST_VARINT = 10
_LARGEST_TAG = 2**32 - 1


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
            tag, at = self._shortest(at, stop)
            if tag > _LARGEST_TAG:
                raise Damaged("a field of a number that does not exist")
            number, wire = tag >> 3, tag & 7
            if wire == VARINT:
                value, after = self._varint(at, stop)
                yield Field(number, wire, value, at, after)
                at = after
                continue
            if wire == SPAN:
                length, at = self._shortest(at, stop)
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

    def int32(self, field: Field) -> int:
        """The one integer of a field of 32 bits; raises `Damaged` for none or a longer one."""
        if field.wire != VARINT:
            raise Damaged("expected an integer")
        return _fitting([_signed(field.value)])[0]

    def int32s(self, field: Field) -> list[int]:
        """As `integers`; raises `Damaged` for one that is longer than 32 bits."""
        return _fitting(self.integers(field))

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

    def _shortest(self, at: int, stop: int) -> tuple[int, int]:
        """As `_varint`, of a number that is written in as few bytes as it can be."""
        value, after = self._varint(at, stop)
        if after - at > 1 and self.raw[after - 1] == 0:
            raise Damaged("a number that is longer than need be")
        return value, after

    def _varint(self, at: int, stop: int) -> tuple[int, int]:
        """The number at ``at``, and where it ends."""
        value = shift = 0
        raw = self.raw
        for place in range(at, min(stop, at + _LONGEST_VARINT)):
            byte = raw[place]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value >= 2**64:
                    raise Damaged("a number of more than 64 bits")
                return value, place + 1
            shift += 7
        raise Damaged("a number without an end")


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def _fitting(values: list[int]) -> list[int]:
    for value in values:
        if not -(2**31) <= value < 2**31:
            raise Damaged(f"expected an integer of 32 bits, got {value}")
    return values
