"""Doctests of a docstring as blocks of code: without this, Markdown takes ``>>>`` for a quotation.

It is an extension of griffe, which reads the docstrings for mkdocstrings.
"""

from __future__ import annotations

from typing import Any

import griffe


def fenced(text: str) -> str:
    """``text`` with a fence around every doctest and its output.

    >>> print(fenced("A sum.\\n\\n>>> 1 + 1\\n2\\n\\nMore."))
    A sum.
    <BLANKLINE>
    ```pycon
    >>> 1 + 1
    2
    ```
    <BLANKLINE>
    More.
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
