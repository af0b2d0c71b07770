"""The page: one file, complete without a network, safe with any text, fit to be read aloud."""

from __future__ import annotations

import re
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest

from presplit.core.errors import MissingLibrary, SpecError
from presplit.report.page import Figure, write_page
from presplit.report.plots import accuracy_against_bytes, answers_over_time


class Tags(HTMLParser):
    """Every start tag with its attributes, and that every element is closed."""

    VOID = ("meta", "br", "hr", "img", "link")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.seen if name == tag]


@pytest.fixture
def page(tmp_path: Path, rows: list[dict], timeline: list[dict]) -> str:
    figures = [
        Figure(
            "Accuracy against bytes", "Up and to the left is better.", accuracy_against_bytes(rows)
        ),
        Figure(
            "Time of each answer",
            "It holds.",
            answers_over_time(timeline, outage=(3, 6), deadline_s=0.05),
        ),
    ]
    facts = {"answers lost": "0", "longest answer": "49 ms"}
    path = write_page(
        tmp_path / "deep" / "report.html", title="Demo", rows=rows, figures=figures, facts=facts
    )
    return path.read_text(encoding="utf-8")


def test_nothing_is_loaded_from_anywhere(page: str) -> None:
    tags = Tags(page)
    assert not tags.open
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in tags.seen}
    for _, attributes in tags.seen:
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith("#")
    assert "@import" not in page and not re.search(r"url\((?!#)", page)


def test_ids_are_unique_and_what_refers_to_them_finds_them(page: str) -> None:
    tags = Tags(page)
    ids = Counter(attributes["id"] for _, attributes in tags.seen if "id" in attributes)
    assert max(ids.values()) == 1
    referred = {a[n] for _, a in tags.seen for n in ("xlink:href",) if a.get(n)} | set(
        re.findall(r"url\((#[^)]*)\)", page)
    )
    assert referred and {name.removeprefix("#") for name in referred if name} <= set(ids)
    assert {a["aria-labelledby"] for _, a in tags.seen if "aria-labelledby" in a} <= set(ids)


def test_headers_have_scopes_and_figures_have_labels(page: str, rows: list[dict]) -> None:
    tags = Tags(page)
    scopes = Counter(attributes.get("scope") for attributes in tags.named("th"))
    assert scopes == {"col": 9, "row": len(rows)}
    labels = [attributes.get("aria-label") for attributes in tags.named("figure")]
    assert labels == [
        "Accuracy against bytes. Up and to the left is better.",
        "Time of each answer. It holds.",
    ]
    assert tags.named("html") == [{"lang": "en"}]
    assert any(attributes.get("name") == "viewport" for attributes in tags.named("meta"))
    assert "prefers-color-scheme: dark" in page


def test_text_is_escaped(tmp_path: Path, rows: list[dict]) -> None:
    rows[0]["way"] = '<script>alert("x")</script>'
    facts = {"<b>": "a & b"}
    page = write_page(
        tmp_path / "r.html", title="<i>", rows=rows, facts=facts, lead="<u>"
    ).read_text(encoding="utf-8")
    assert not re.search(r"<(script|b|i|u)>", page)
    assert "&lt;script&gt;" in page and "a &amp; b" in page


def test_a_figure_that_is_not_a_plain_svg_is_refused() -> None:
    for svg in ("<img src=x>", "<svg><script>1</script></svg>", "<svg></svg><p>"):
        with pytest.raises(
            SpecError, match="figure 'f': expected one <svg> element without scripts"
        ):
            Figure("f", "", svg)


def test_a_page_that_cannot_be_written_is_one_sentence(tmp_path: Path, rows: list[dict]) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SpecError, match=r"file/report\.html: the report cannot be written"):
        write_page(tmp_path / "file" / "report.html", title="t", rows=rows)


def test_a_missing_jinja2_is_one_sentence(
    tmp_path: Path, rows: list[dict], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(
        MissingLibrary, match=r"the report needs jinja2: pip install 'presplit\[report\]'"
    ):
        write_page(tmp_path / "r.html", title="t", rows=rows)
