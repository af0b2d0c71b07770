"""Errors: one tree, one sentence each, and the door adds where."""

from __future__ import annotations

import inspect

import pytest

from presplit.core import errors


def kinds() -> list[type[errors.PresplitError]]:
    return [
        kind
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if kind.__module__ == errors.__name__ and not issubclass(kind, Warning)
    ]


@pytest.mark.parametrize("kind", kinds())
def test_every_error_is_in_the_one_tree_and_drawn_in_the_head(kind: type[Exception]) -> None:
    assert issubclass(kind, errors.PresplitError)
    assert kind.__name__ in (errors.__doc__ or "")


@pytest.mark.parametrize("kind", kinds())
def test_context_keeps_the_kind_and_the_cause(kind: type[errors.PresplitError]) -> None:
    sentence = "^file a: layer b: too wide$"
    with (
        pytest.raises(kind, match=sentence) as caught,
        errors.context("file a"),
        errors.context("layer b"),
    ):
        raise kind("too wide")
    assert isinstance(caught.value.__cause__, kind)


def test_context_leaves_other_errors_alone() -> None:
    with pytest.raises(ValueError, match="^mine$"), errors.context("file a"):
        raise ValueError("mine")


def test_a_missing_library_is_one_sentence_with_its_cure() -> None:
    with pytest.raises(
        errors.MissingLibrary, match=r"^the plot needs no_such: .*pip install .*\[report\]'$"
    ):
        errors.library("no_such", need="the plot", extra="report")
