"""Files that belong together come to be together, or not at all."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from presplit.core.errors import SpecError
from presplit.core.private import NewFiles


def test_where_one_file_cannot_be_written_none_is(tmp_path: Path) -> None:
    """As on a disk that is full after the first file."""
    (tmp_path / "list").write_text("first")
    for folder in (tmp_path / "new" / "inner", tmp_path):
        new = NewFiles(folder)
        new.add("small", b"1", private=True)
        new.add_line("list", "second")
        new.add("large", bytes(9000))
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
        try:
            with pytest.raises(SpecError, match=r"large: cannot be written .File too large"):
                new.write()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert [each.name for each in tmp_path.iterdir()] == ["list"]
    new = NewFiles(tmp_path)
    new.add_line("list", "second")
    new.write()
    assert (tmp_path / "list").read_text() == "first\nsecond\n"


def test_nothing_is_written_of_what_failed_before_its_end(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")

    def made(folder: Path) -> None:
        with NewFiles(folder) as new:
            new.add("a", b"")
            new.add("link", b"")

    with pytest.raises(SpecError, match="link: is there already"):
        made(tmp_path)
    assert not (tmp_path / "a").exists()
    made(tmp_path / "other")
    assert {each.name for each in (tmp_path / "other").iterdir()} == {"a", "link"}
