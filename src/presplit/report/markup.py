"""HTML as values: whatever is not `Html` is text, and text is escaped."""

from __future__ import annotations

from html import escape

VOID = frozenset({"br", "hr", "img", "link", "meta", "wbr"})
"""Elements that hold nothing and are not closed."""


class Html(str):
    """Text that is HTML already, made by this file's functions or by whoever vouches for it."""

    __slots__ = ()


def element(name: str, /, *inside: str, **attributes: str | None) -> Html:
    """One element with what is ``inside`` it; attributes that are None are left out.

    An attribute's name may end in ``_`` where Python has that word, and ``_`` stands for ``-``.

    >>> element("p", "1 < 2", element("br"), class_="note", aria_label='a "b"')
    '<p class="note" aria-label="a &quot;b&quot;">1 &lt; 2<br></p>'
    """
    words = [
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
        if value is not None
    ]
    start = f"<{name}{''.join(words)}>"
    return Html(start if name in VOID else f"{start}{joined(*inside)}</{name}>")


def joined(*parts: str) -> Html:
    """The parts one after another, each escaped unless it is HTML.

    >>> joined("a & b", Html("<hr>"))
    'a &amp; b<hr>'
    """
    return Html(
        "".join(part if isinstance(part, Html) else escape(part, quote=False) for part in parts)
    )
