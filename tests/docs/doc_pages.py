"""What the pages of the documentation hold: blocks, links, and what each page is tried with.

A page says in a comment with what its blocks are tried::

    <!-- tried with: net.bundle, photos; BUNDLE = net.bundle; HOST = 127.0.0.1 -->

Before the first ``;`` stand things of `workshop`, then words that stand for others in the blocks.
A block that is a file has its name as a title, and is written before the next one is done. One that
no test can run says why where readers see it: ``sh title="untried: needs Docker"``.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("docs/**/*.md"), ROOT / "README.md"])
UNTRIED = "untried: "
_FENCE = re.compile(r"^( *)```(\w*)(?: ([^\n]*))?\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_TRIED = re.compile(r"<!-- tried with:(.*?)-->", re.DOTALL)
_TITLE = re.compile(r'title="([^"]*)"')
_INLINE = re.compile(r"(?<!`)`(presplit [^`]*)`(?!`)", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A block of code; its title is the name of the file that it is, or why it is not tried."""

    page: Path
    line: int
    kind: str
    text: str
    title: str

    @property
    def untried(self) -> str:
        """Why it is not tried, or nothing."""
        return self.title.removeprefix(UNTRIED) if self.title.startswith(UNTRIED) else ""

    @property
    def commands(self) -> list[str]:
        """The lines of a shell block, those that end with a backslash joined, without comments."""
        lines = self.text.replace("\\\n", " ").splitlines()
        if self.kind == "console":  # what is typed stands behind a $, the rest is what it says
            lines = [line[2:] for line in lines if line.startswith("$ ")]
        bare = [re.sub(r"(^|\s)#.*", "", line).strip() for line in lines]
        return [line for line in bare if line]

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


@dataclass(frozen=True)
class Tried:
    """With which things a page is tried, and which words stand for others."""

    things: tuple[str, ...] = ()
    words: dict[str, str] = field(default_factory=dict)

    def spelled(self, text: str) -> str:
        """``text`` with its words put in; only whole words, so HOST is not found in LOCALHOST."""
        for word, meant in self.words.items():
            text = re.sub(rf"(?<![\w.]){re.escape(word)}(?!\w)", meant, text)
        return text


def blocks(page: Path) -> list[Block]:
    """The blocks of ``page`` in order."""
    text = page.read_text()
    found: list[Block] = []
    for match in _FENCE.finditer(text):
        title = _TITLE.search(match[3] or "")
        line = text.count("\n", 0, match.start()) + 1
        found.append(Block(page, line, match[2], match[4], title[1] if title else ""))
    return found


def tried(page: Path) -> Tried:
    """What the comments of ``page`` say."""
    things: list[str] = []
    words: dict[str, str] = {}
    for said in _TRIED.findall(page.read_text()):
        first, *rest = said.split(";")
        things += [thing.strip() for thing in first.split(",") if thing.strip()]
        for pair in rest:
            word, _, meant = pair.partition("=")
            words[word.strip()] = meant.strip()
    return Tried(tuple(things), words)


def inline(page: Path) -> list[str]:
    """Every ``presplit ...`` that stands in a line of text."""
    text = _FENCE.sub("", page.read_text())
    return [" ".join(found.split()) for found in _INLINE.findall(text)]


def presplit_calls(command: str) -> list[list[str]]:
    """The arguments of each call of ``presplit`` in a line of shell."""
    words = shlex.split(command)
    calls: list[list[str]] = []
    for at, word in enumerate(words):
        if word == "presplit" and words[at + 1 : at + 2]:
            rest = words[at + 1 :]
            ends = [n for n, each in enumerate(rest) if each in ("|", ">", "&&", "&", ";", ">>")]
            calls.append(rest[: min(ends, default=len(rest))])
    return calls


def links(page: Path) -> list[tuple[str, str]]:
    """The links of ``page`` to files and headings: what they lead to, and the heading, if any."""
    text = _FENCE.sub("", page.read_text())
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    found: list[tuple[str, str]] = []
    for target in targets:
        if not re.match(r"[a-z]+:", target):
            file, _, heading = target.partition("#")
            found.append((file, heading))
    return found


def headings(page: Path) -> set[str]:
    """The names by which the headings of ``page`` are linked to."""
    text = _FENCE.sub("", page.read_text())
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE):
        plain = re.sub(r"[^\w\s-]", "", heading.lower()).strip()
        found.add(re.sub(r"[\s]+", "-", plain))
    return found
