"""Shelves: looked up by name, never imported by name, and helpful when a name is wrong."""

from __future__ import annotations

import pytest

from presplit.codecs import CODECS
from presplit.core.errors import SpecError
from presplit.core.shelf import Shelf
from presplit.policies import EXITS
from presplit.profiles import DEVICES, LINKS

SHELVES = [CODECS, EXITS, DEVICES, LINKS]


@pytest.mark.parametrize("shelf", SHELVES, ids=lambda shelf: shelf.kind)
def test_everything_listed_is_found_by_its_name(shelf: Shelf[object]) -> None:
    assert len(shelf) == len(list(shelf)) > 0
    for name in shelf:
        assert shelf.find(name) is shelf[name]


@pytest.mark.parametrize("shelf", SHELVES, ids=lambda shelf: shelf.kind)
def test_an_unknown_name_is_refused_with_the_nearest_ones(shelf: Shelf[object]) -> None:
    name = next(iter(shelf))
    with pytest.raises(
        SpecError, match=rf"no {shelf.kind} named '{name}x' \(nearest: .*{name}.*\); there are: "
    ):
        shelf.find(f"{name}x")


def test_a_name_that_resembles_nothing_gets_the_whole_list() -> None:
    with pytest.raises(
        SpecError, match="no codec named 'zzz'; there are: float32, float16, bfloat16, int8, "
    ):
        CODECS.find("zzz")


def test_a_shelf_does_not_change_with_the_dict_it_was_made_of() -> None:
    entries = {"a": 1}
    shelf = Shelf("thing", entries)
    entries["b"] = 2
    assert list(shelf) == ["a"]
    with pytest.raises(TypeError, match="item assignment"):
        shelf["b"] = 2  # type: ignore[index]
