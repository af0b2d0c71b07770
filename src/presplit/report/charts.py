"""Charts as SVG text to stand inside a page: lines, marks, whiskers, bands, bars and a matrix.

Nothing is drawn by a library, so a page with a dozen charts stays small, and every chart takes the
page's colours, light or dark, by the classes of ``pages/look.css``: its hues begin as Okabe and
Ito's (jfly.uni-koeln.de/color), which colour-blind readers tell apart, and every series has marks
of its own form as well. A chart is 380 wide, so that text of 12 is legible on a phone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from presplit.core.errors import SpecError
from presplit.report.markup import Html, element, joined
from presplit.report.pages import text as page_text
from presplit.report.scales import Axis, Scale, laid

WIDTH, HEIGHT = 380, 250
HUES = 8
LETTER = 7.2
"""About the width of a letter of the text, which nobody can measure before a browser draws it."""
MANY = 60
"""More marks than these are dots: their forms could not be told apart, and would weigh much."""


@dataclass(frozen=True)
class Series:
    """Points in the order of ``x``, drawn as a line, as marks or both.

    ``spread``: the low and high end of each ``y``, as whiskers at marks and as a band along a line;
    ``steps``: the line stays until the next point; ``hollow``: marks are outlines. ``hue`` is one
    of 1..8, 0 is the page's ink; by default the series' number among all.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    line: bool = True
    marks: bool = False
    steps: bool = False
    dashed: bool = False
    hollow: bool = False
    spread: Sequence[tuple[float, float]] = ()
    hue: int | None = None


@dataclass(frozen=True)
class Rule:
    """A dashed line across a chart with words at it: at a value of ``y``, or of ``x``."""

    words: str
    x: float | None = None
    y: float | None = None


@dataclass(frozen=True)
class Span:
    """A shaded part of a chart between two values of ``x``."""

    words: str
    start: float
    end: float
    hue: int = 2


def chart(
    series: Sequence[Series],
    *,
    x: Axis,
    y: Axis,
    rules: Sequence[Rule] = (),
    spans: Sequence[Span] = (),
    height: int = HEIGHT,
) -> str:
    """SVG of all ``series`` over common axes, with the names of those that have one above.

    Raises `SpecError` where a series has not as many ``y`` as ``x``.
    """
    for each in series:
        if len(each.x) != len(each.y):
            raise SpecError(f"{each.name}: expected a y for each of {len(each.x)} x")
    hues = [
        number % HUES + 1 if each.hue is None else each.hue for number, each in enumerate(series)
    ]
    keys = [(each.name, hue, _mark_of(each)) for each, hue in zip(series, hues, strict=True)]
    keys += [(each.words, each.hue, "area") for each in spans]
    # A line alone is what the upright axis says.
    is_alone = [kind for *_, kind in keys] == ["line"]
    legend, top = _legend([] if is_alone else [key for key in keys if key[0]])
    across, up = _scales(series, x, y, rules, top, height)
    drawn = [
        *(_span(each, across, up) for each in spans),
        *_frame(across, up, height),
        *(_series(each, hue, across, up) for each, hue in zip(series, hues, strict=True)),
        *(_rule(each, across, up) for each in rules),
    ]
    return _svg(height, legend, *drawn)


def ranges(rows: Sequence[tuple[str, float, float, float]], *, axis: Axis) -> str:
    """SVG of a line for each of ``rows``: its name, a value, and the low and high end of it."""
    left = 14 + min(150.0, LETTER * max((len(name) for name, *_ in rows), default=0))
    height = 24 * len(rows) + 48
    values = [value for _, *some in rows for value in some]
    across = laid(axis, values, left, WIDTH - 14)
    up = Scale(Axis(""), 0, 1, height - 42, 4)
    drawn = [*_across(across, up, height)]
    for number, (name, value, low, high) in enumerate(rows):
        row = 16.0 + 24 * number
        ends = f"M{across.place(low):.1f},{row:.1f}H{across.place(high):.1f}"
        drawn.append(_text(left - 8, row + 4, _cut(name, 22), "tx", "end"))
        drawn.append(element("path", class_="s1 ln", d=ends))
        drawn.append(element("path", class_="s1 mk", d=_mark(across.place(value), row, 1)))
    return _svg(height, *drawn)


def matrix(counts: Sequence[Sequence[int]], names: Sequence[str]) -> str:
    """SVG of how often samples of a row's class were taken for a column's.

    The darker, the larger the share of its row; numbers stand in it while there is room.
    """
    size = len(counts)
    left = 12 + min(96.0, LETTER * max((len(name) for name in names), default=0))
    cell = (WIDTH - left - 6) / max(1, size)
    top, is_wide = 22.0, cell >= 24
    drawn: list[Html] = [_text(left + size * cell / 2, 12, "taken for", "ts", "middle")]
    for row, line in enumerate(counts):
        middle = top + (row + 0.5) * cell + 4
        if cell >= 11:
            drawn.append(_text(left - 6, middle, _cut(names[row], 14), "tx", "end"))
        for column, count in enumerate(line):
            drawn += _cell(count, sum(line), (row, column), left, top, cell, is_wide=is_wide)
    bottom = top + size * cell
    edge = f"M{left:.1f},{top:.1f}h{size * cell:.1f}v{size * cell:.1f}h{-size * cell:.1f}z"
    drawn.append(element("path", class_="ax", d=edge))
    if cell < 11:
        return _svg(int(bottom + 6), *drawn)
    longest = max((len(name) for name in names), default=0)
    if longest * LETTER < cell:
        middles = [(left + (k + 0.5) * cell, name) for k, name in enumerate(names)]
        drawn += [_text(x, bottom + 15, name, "ts", "middle") for x, name in middles]
        return _svg(int(bottom + 22), *drawn)
    for number, name in enumerate(names):
        turned = f"translate({left + (number + 0.5) * cell + 4:.1f},{bottom + 6:.1f}) rotate(-90)"
        words = element("text", _cut(name, 14), class_="ts", text_anchor="end")
        drawn.append(element("g", words, transform=turned))
    return _svg(int(bottom + 14 + LETTER * min(14, longest)), *drawn)


def alone(svg: str) -> str:
    """The same chart as a file of its own, which brings the colours that a page would give it."""
    css = page_text("look.css")
    colours = css[css.index(":root") : css.index("* {")]
    charts = css[css.index("/* Charts") : css.index("@media print")]
    style = re.sub(r"\s+", " ", re.sub(r"/\*.*?\*/", "", colours + charts, flags=re.S))
    font = "svg { font: 12px/1 system-ui, sans-serif }"
    opening, rest = svg.split(">", 1)
    return f'{opening} xmlns="http://www.w3.org/2000/svg"><style>{style}{font}</style>{rest}'


def stacked(parts: Sequence[tuple[str, str]]) -> str:
    """Several charts below each other as one, each with its title."""
    top, drawn = 0, list[Html]()
    for title, svg in parts:
        found = re.search(r'viewBox="0 0 \d+ (\d+)"', svg)
        height = int(found[1]) if found else HEIGHT
        drawn.append(_text(4, top + 14, title, "tx", "start"))
        drawn.append(Html(svg.replace("<svg", f'<svg y="{top + 20}" height="{height}"', 1)))
        top += height + 30
    return _svg(top, *drawn)


def _svg(height: int, *inside: Html) -> str:
    return element("svg", *inside, viewBox=f"0 0 {WIDTH} {height}")


def _scales(
    series: Sequence[Series], x: Axis, y: Axis, rules: Sequence[Rule], top: float, height: int
) -> tuple[Scale, Scale]:
    """The axes laid over the drawing; the text at the upright one takes the room that it needs."""
    heights = [value for each in series for value in each.y]
    heights += [end for each in series for ends in each.spread for end in ends]
    heights += [rule.y for rule in rules if rule.y is not None]
    widths = [value for each in series for value in each.x]
    widths += [rule.x for rule in rules if rule.x is not None]
    up = laid(y, heights, height - 44.0, top + 18.0)
    left = 10 + LETTER * max((len(words) for _, words in up.ticks()), default=1)
    return laid(x, widths, left, WIDTH - 12.0), up


def _frame(across: Scale, up: Scale, height: int) -> list[Html]:
    lines = "".join(
        f"M{across.start:.1f},{up.place(value):.1f}H{across.end:.1f}" for value, _ in up.ticks()
    )
    words = [
        _text(across.start - 6, up.place(value) + 4, shown, "ts", "end")
        for value, shown in up.ticks()
    ]
    title = _text(4, up.end - 7, up.axis.title, "tx", "start")
    return [element("path", class_="gr", d=lines), *words, title, *_across(across, up, height)]


def _across(across: Scale, up: Scale, height: int) -> list[Html]:
    """The lower axis with its marks and words; words that would overlap are left out."""
    drawn = [element("path", class_="ax", d=f"M{across.start:.1f},{up.start:.1f}H{across.end:.1f}")]
    reached = 0.0
    for value, shown in across.ticks():
        place, half = across.place(value), LETTER * len(shown) / 2
        drawn.append(element("path", class_="ax", d=f"M{place:.1f},{up.start:.1f}v4"))
        if place - half < reached:
            continue
        reached = place + half + 5
        middle = max(half + 2, min(place, WIDTH - half - 2))
        drawn.append(_text(middle, up.start + 17, shown, "ts", "middle"))
    middle = (across.start + across.end) / 2
    return [*drawn, _text(middle, height - 8, across.axis.title, "tx", "middle")]


def _series(each: Series, hue: int, across: Scale, up: Scale) -> Html:
    places = [(across.place(x), up.place(y)) for x, y in zip(each.x, each.y, strict=True) if y == y]
    ends = [(up.place(low), up.place(high)) for low, high in each.spread]
    drawn: list[Html] = []
    if ends and each.line:
        upper = [f"{x:.1f},{high:.1f}" for (x, _), (_, high) in zip(places, ends, strict=False)]
        lower = [f"{x:.1f},{low:.1f}" for (x, _), (low, _) in zip(places, ends, strict=False)]
        band = f"M{'L'.join([*upper, *reversed(lower)])}z"
        drawn.append(element("path", class_="ar", d=band, fill_opacity="0.16"))
    if each.line and places:
        dashes = "5 4" if each.dashed else None
        path = _steps(places) if each.steps else "L".join(f"{x:.1f},{y:.1f}" for x, y in places)
        drawn.append(element("path", class_="ln", d=f"M{path}", stroke_dasharray=dashes))
    if ends and not each.line:
        whiskers = "".join(
            f"M{x:.1f},{low:.1f}V{high:.1f}m-3,0h6M{x - 3:.1f},{low:.1f}h6"
            for (x, _), (low, high) in zip(places, ends, strict=False)
        )
        drawn.append(element("path", class_="ln", d=whiskers, style="stroke-width:1.4"))
    if each.marks and len(places) > MANY:
        dots = "".join(f"M{x:.1f},{y:.1f}h0" for x, y in places)
        look = "stroke-width:4;stroke-linecap:round;stroke-opacity:.75"
        drawn.append(element("path", class_="ln", d=dots, style=look))
    elif each.marks:
        marks = "".join(_mark(x, y, hue) for x, y in places)
        drawn.append(element("path", class_="mo" if each.hollow else "mk", d=marks))
    return element("g", *drawn, class_=f"s{hue}")


def _steps(places: Sequence[tuple[float, float]]) -> str:
    (x, y), *rest = places
    return f"{x:.1f},{y:.1f}" + "".join(f"H{x:.1f}V{y:.1f}" for x, y in rest)


def _mark(x: float, y: float, hue: int) -> str:
    """A closed path around a point, of another form for each hue."""
    forms = {
        1: f"M{x - 4.4:.1f},{y:.1f}a4.4,4.4 0 1,0 8.8,0a4.4,4.4 0 1,0 -8.8,0z",
        2: f"M{x - 4:.1f},{y - 4:.1f}h8v8h-8z",
        3: f"M{x:.1f},{y - 5:.1f}l5,9h-10z",
        4: f"M{x:.1f},{y - 5.5:.1f}l5.5,5.5l-5.5,5.5l-5.5,-5.5z",
        5: f"M{x:.1f},{y + 5:.1f}l5,-9h-10z",
        6: f"M{x - 2:.1f},{y - 5:.1f}h4v3h3v4h-3v3h-4v-3h-3v-4h3z",
        7: f"M{x + 5:.1f},{y:.1f}l-9,5v-10z",
        8: f"M{x - 5:.1f},{y:.1f}l9,5v-10z",
    }
    return forms.get(hue, forms[1])


def _rule(each: Rule, across: Scale, up: Scale) -> Html:
    look = {"stroke_dasharray": "2 3", "style": "stroke-width:1.4"}
    if each.y is not None:
        place = up.place(each.y)
        path = f"M{across.start:.1f},{place:.1f}H{across.end:.1f}"
        words = _text(across.end, place - 5, each.words, "tx", "end")
    else:
        place = across.place(each.x or 0.0)
        path = f"M{place:.1f},{up.start:.1f}V{up.end:.1f}"
        is_left = place + LETTER * len(each.words) > across.end
        side, aside = ("end", -5) if is_left else ("start", 5)
        words = _text(place + aside, up.start - 7, each.words, "tx", side)
    return element("g", element("path", class_="ln", d=path, **look), words, class_="s0")


def _span(each: Span, across: Scale, up: Scale) -> Html:
    start, end = across.place(each.start), across.place(each.end)
    path = f"M{start:.1f},{up.start:.1f}V{up.end:.1f}H{end:.1f}V{up.start:.1f}z"
    return element("path", class_=f"s{each.hue} ar", d=path, fill_opacity="0.15")


def _mark_of(each: Series) -> str:
    if each.marks:
        return "outline" if each.hollow else "mark"
    return "dashed" if each.dashed else "line"


def _legend(keys: Sequence[tuple[str, int, str]]) -> tuple[Html, float]:
    """The names with their colours, in as many lines as they need, and where they end."""
    x, line, drawn = 4.0, 0, list[Html]()
    for words, hue, kind in keys:
        shown = _cut(words, 48)
        width = 24 + LETTER * len(shown)
        if x > 4 and x + width > WIDTH:
            x, line = 4.0, line + 1
        y = 10.0 + 18 * line
        drawn += [_key(kind, x, y, hue), _text(x + 19, y + 4, shown, "tx", "start")]
        x += width + 10
    return joined(*drawn), 18.0 * (line + 1) + 8 if keys else 2.0


def _key(kind: str, x: float, y: float, hue: int) -> Html:
    if kind in ("mark", "outline"):
        look = "mo" if kind == "outline" else "mk"
        return element("path", class_=f"s{hue} {look}", d=_mark(x + 8, y, hue))
    if kind == "area":
        box = f"M{x:.1f},{y - 6:.1f}h15v11h-15z"
        return element("path", class_=f"s{hue} ar", d=box, fill_opacity="0.3")
    dashes = "5 4" if kind == "dashed" else None
    return element("path", class_=f"s{hue} ln", d=f"M{x:.1f},{y:.1f}h15", stroke_dasharray=dashes)


def _cell(
    count: int,
    total: int,
    at: tuple[int, int],
    left: float,
    top: float,
    cell: float,
    *,
    is_wide: bool,
) -> list[Html]:
    if not count:
        return []
    (row, column), share = at, count / total
    x, y = left + column * cell, top + row * cell
    # An error is to be seen at once, so its colour begins far above nothing.
    strength = share if row == column else 0.2 + 0.8 * share
    hue = 1 if row == column else 2
    box = f"M{x:.1f},{y:.1f}h{cell:.1f}v{cell:.1f}h{-cell:.1f}z"
    drawn = [element("path", class_=f"s{hue} ar", d=box, fill_opacity=f"{strength:.2f}")]
    if is_wide:
        look = "tc" if strength > 0.55 else "tx"
        drawn.append(_text(x + cell / 2, y + cell / 2 + 4, str(count), look, "middle"))
    return drawn


def _text(x: float, y: float, words: str, look: str, anchor: str) -> Html:
    at = None if anchor == "start" else anchor
    return element("text", words, x=f"{x:.1f}", y=f"{y:.1f}", class_=look, text_anchor=at)


def _cut(words: str, most: int) -> str:
    """``words``, shortened in the middle where they are longer than ``most``."""
    if len(words) <= most:
        return words
    half = (most - 1) // 2
    return f"{words[:half]}…{words[-half:]}"
