"""Doctests of a docstring as blocks of code: without this, Markdown takes ``>>>`` for a quotation.

It is an extension of griffe, which reads the docstrings for mkdocstrings.
"""

from __future__ import annotations

from typing import Any

import griffe


def fenced(text: str) -> str:
    """``text`` with a fence around every doctest and its output.

    >>> fenced("A sum.").count("```"), fenced(">>> 1 + 1").count("```")
    (0, 2)
    """
    paragraphs: list[str] = []
    for paragraph in text.split("\n\n"):
        is_doctest = paragraph.lstrip().startswith(">>>")
        paragraphs.append(f"```pycon\n{paragraph}\n```" if is_doctest else paragraph)
    return "\n\n".join(paragraphs)


class Doctests(griffe.Extension):
    """Fences the doctests of everything that has a docstring."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called with each object when it has been read."""
        if obj.docstring:
            obj.docstring.value = fenced(obj.docstring.value)
