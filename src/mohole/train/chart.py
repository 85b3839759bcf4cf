"""Plots as SVG, and the page or drawing that holds them: one file, no script, no network. Knows nothing of what they are of."""

import hashlib
import re
from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from mohole.storage.files import write_whole
from mohole.train.axis import Axis, Scale
from mohole.visible import visible

LARGE, SMALL = (560, 380), (390, 250)
"""Sizes of a plot, in pixels. Small ones stand three in a row."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 14, 14, 46
_COLOURS = 8
_DASHES = ("", " dash1", " dash2")
_COLUMNS, _GAP, _LETTER = 3, 24, 7.2
_STYLE = """
:root { color-scheme: light dark; --paper: #f8f7f3; --ink: #1c1f25; --soft: #586070; --line: #d9d5cb;
  --c0: #0a6a70; --c1: #c25e00; --c2: #5a4fcf; --c3: #a3402c; --c4: #2f7d32; --c5: #b0307f; --c6: #8a6d00; --c7: #3b6ea8; }
@media (prefers-color-scheme: dark) { :root { --paper: #13161a; --ink: #e9e7e2; --soft: #a4abb8; --line: #333942;
  --c0: #62cfc9; --c1: #ffa033; --c2: #a59cff; --c3: #ef9a84; --c4: #86d08a; --c5: #f08cc8; --c6: #e2c55a; --c7: #8fbdf0; } }
body { margin: 2rem auto; width: min(1180px, 100% - 2rem); background: var(--paper); color: var(--ink); }
body { font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; } .note { color: var(--soft); max-width: 80ch; }
.plots { display: flex; flex-wrap: wrap; gap: 1.5rem; } figure { margin: 0; flex: 1 1 420px; } figcaption { font-weight: 600; }
.plots.small { display: grid; grid-template-columns: repeat(auto-fill, minmax(330px, 1fr)); }
figure > svg { width: 100%; height: auto; } svg text { font-size: 12px; fill: var(--ink); } svg .tick { fill: var(--soft); }
.grid { stroke: var(--line); stroke-width: 1; } .curve { fill: none; stroke-width: 1.6; } .law { stroke-dasharray: 5 4; }
.dash1 { stroke-dasharray: 7 3; } .dash2 { stroke-dasharray: 2 3; } circle { stroke-dasharray: none; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.4rem; } .legend svg { width: 28px; height: 10px; margin-right: .4rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; margin: 1rem 0; }
th, td { text-align: right; padding: .2rem .7rem; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child, .words { text-align: left; }
""" + "".join(f".c{n} {{ stroke: var(--c{n}); fill: var(--c{n}); }}\n" for n in range(_COLOURS))


@dataclass(frozen=True)
class Series:
    """Points of one colour."""

    label: str
    points: tuple[tuple[float, float, str], ...] = ()
    """x, y, and what is said of the point. Above zero where an axis is logarithmic."""
    line: tuple[tuple[float, float], ...] = ()
    """A line through these places, ascending in x."""
    is_law: bool = False
    """The line is a fit, not a connection of points: it is drawn dashed."""


@dataclass(frozen=True)
class Figure:
    """One plot."""

    title: str
    label: str
    """What it shows, for those who do not see it."""
    size: tuple[int, int]
    drawing: str
    """The inside of its SVG element."""


def plot(
    title: str,
    x_label: str,
    y_label: str,
    series: Sequence[Series],
    *,
    x_scale: Scale = "log",
    y_scale: Scale = "log",
    size: tuple[int, int] = LARGE,
    has_legend: bool = True,
    floor: float | None = None,
    has_zero: bool = False,
) -> Figure:
    """One figure.

    Args:
        floor, has_zero: of a linear y axis: what lies below is cut off; it begins at zero.

    Raises:
        ValueError: no points, or one that is not above zero on a logarithmic axis.
    """
    places = [(x, y) for one in series for x, y in [*((x, y) for x, y, _ in one.points), *one.line]]
    shown = [
        values for values, scale in zip(zip(*places, strict=True), (x_scale, y_scale), strict=False) if scale == "log"
    ]
    if not places or any(min(values) <= 0 for values in shown):
        raise ValueError(f"{title}: a plot needs points, and on logarithmic axes numbers above zero")
    width, height = size
    y_axis = Axis.over([y for _, y in places], height - _BOTTOM, _TOP, y_scale, floor=floor, has_zero=has_zero)
    longest = max((len(label) for _, label in y_axis.ticks(_tick_room(y_axis))), default=0)
    left = max(_LEFT, round(30 + _LETTER * longest))
    x_axis = Axis.over([x for x, _ in places], left, width - _RIGHT, x_scale)
    # An SVG element inside of another one cuts off what leaves it.
    place = f"{left} {_TOP} {width - _RIGHT - left} {height - _TOP - _BOTTOM}"
    x, y, *size_of = place.split()
    inner = f'x="{x}" y="{y}" width="{size_of[0]}" height="{size_of[1]}" viewBox="{place}"'
    parts = [*_grid(x_axis, y_axis, x_label, y_label, size), f"<svg {inner}>"]
    for number, one in enumerate(series):
        parts += _drawn(one, number, x_axis, y_axis)
    parts += ["</svg>", *(_legend(series, size) if has_legend else ())]
    return Figure(title, f"{title}: {y_label} over {x_label}", size, "".join(parts))


def write_drawing(
    out: Path, title: str, notes: Sequence[str], plots: Sequence[Figure], legend: Sequence[str] = ()
) -> None:
    """Write small plots as one SVG drawing, whole or not at all: three in a row, light colours in it, alike in every program."""
    cell_width, cell_height = SMALL[0] + _GAP, SMALL[1] + 22 + _GAP
    width = min(len(plots), _COLUMNS) * cell_width + _GAP
    parts = [f'<text class="title" x="{_GAP}" y="38">{escape(visible(title))}</text>']
    y = 52.0
    for line in (line for note in notes for line in _folded(visible(note), int((width - 2 * _GAP) / _LETTER * 1.1))):
        y += 18
        parts.append(f'<text class="tick" x="{_GAP}" y="{y}">{escape(line)}</text>')
    x = float(_GAP)
    y += 26 if legend else 0
    for number, label in enumerate(map(visible, legend)):
        needed = 56 + _LETTER * len(label)
        if x + needed > width and x > _GAP:
            x, y = float(_GAP), y + 20
        parts += [f'<g transform="translate({x} {y - 9})">{_swatch(number)}</g>']
        parts.append(f'<text x="{x + 34}" y="{y}">{escape(label)}</text>')
        x += needed
    top = y + 20
    for number, each in enumerate(plots):
        x, y = _GAP + number % _COLUMNS * cell_width, top + number // _COLUMNS * cell_height
        parts.append(f'<text class="head" x="{x + 4}" y="{y + 14}">{escape(visible(each.title))}</text>')
        parts.append(f'<g transform="translate({x} {y + 22})">{each.drawing}</g>')
    height = round(top + -(-len(plots) // _COLUMNS) * cell_height)
    write_whole(
        out,
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
        f"<title>{escape(visible(title))}</title><style>{_literal_style()}</style>"
        f'<rect class="paper" width="100%" height="100%"/>'
        f"{''.join(parts)}</svg>\n",
    )


def _literal_style() -> str:
    """The page's style with its light colours put in: not every program that shows SVG knows variables."""
    colours = dict(re.findall(r"(--\w+): (#\w+)", _STYLE.split("@media")[0]))
    kept = "\n".join(line for line in _STYLE.splitlines() if line.startswith((".grid", ".c", ".dash1")))
    extra = (
        "text { font: 12px system-ui, sans-serif; fill: var(--ink); } .tick { fill: var(--soft); }\n"
        ".paper { fill: var(--paper); }\n"
        ".title { font-size: 20px; font-weight: 600; } .head { font-size: 14px; font-weight: 600; }\n"
    )
    return re.sub(r"var\((--\w+)\)", lambda found: colours[found[1]], extra + kept)


def _folded(text: str, width: int) -> Iterator[str]:
    line = ""
    for word in text.split():
        if line and len(line) + 1 + len(word) > width:
            yield line
            line = ""
        line = f"{line} {word}".strip()
    if line:
        yield line


def write_page(
    out: Path,
    title: str,
    notes: Sequence[str],
    plots: Sequence[Figure],
    heads: Sequence[str],
    lines: Sequence[Sequence[str]],
    *,
    legend: Sequence[str] = (),
) -> None:
    """Write a page of plots with a table below, whole or not at all. The same values give the same bytes.

    Args:
        legend: names of the series, where they are the same ones in all plots.
    """
    digest = b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:"
    classes = [' class="words"' if any(map(_is_prose, column)) else "" for column in zip(*lines, strict=True)]
    classes = classes or [""] * len(heads)
    cells = "".join(
        f"<tr>{''.join(f'<td{css}>{escape(visible(cell))}</td>' for cell, css in zip(line, classes, strict=True))}</tr>"
        for line in lines
    )
    head = "".join(f"<th{css}>{escape(name)}</th>" for name, css in zip(heads, classes, strict=True))
    text = "".join(f'<p class="note">{escape(visible(note))}</p>' for note in notes)
    swatches = (
        f'<span><svg viewBox="0 0 28 10">{_swatch(n)}</svg>{escape(visible(x))}</span>' for n, x in enumerate(legend)
    )
    named = f'<p class="legend">{"".join(swatches)}</p>' if legend else ""
    kind = "plots small" if plots and plots[0].size == SMALL else "plots"
    write_whole(
        out,
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>{escape(visible(title))} · mohole</title><style>{_STYLE}</style></head>"
        f'<body><h1>{escape(visible(title))}</h1>{text}{named}<div class="{kind}">{"".join(map(_element, plots))}</div>'
        f"<table><thead><tr>{head}</tr></thead><tbody>{cells}</tbody></table></body></html>\n",
    )


def _is_prose(cell: str) -> bool:
    """Words are read from the left; numbers, with a unit behind them or none, are compared from the right."""
    return cell[:1].isalpha()


def _element(figure: Figure) -> str:
    width, height = figure.size
    label = escape(visible(figure.label))
    drawing = f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}">{figure.drawing}</svg>'
    return f"<figure><figcaption>{escape(visible(figure.title))}</figcaption>{drawing}</figure>"


def _grid(x_axis: Axis, y_axis: Axis, x_label: str, y_label: str, size: tuple[int, int]) -> list[str]:
    width, height = size
    left = x_axis.start
    parts = []
    for value, label in x_axis.ticks(room=52):
        x = x_axis.at(value)
        parts.append(f'<line class="grid" x1="{x}" x2="{x}" y1="{_TOP}" y2="{height - _BOTTOM}"/>')
        parts.append(f'<text class="tick" x="{x}" y="{height - _BOTTOM + 16}" text-anchor="middle">{label}</text>')
    for value, label in y_axis.ticks(_tick_room(y_axis)):
        y = y_axis.at(value)
        parts.append(f'<line class="grid" x1="{left}" x2="{width - _RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text class="tick" x="{left - 6}" y="{y + 4}" text-anchor="end">{label}</text>')
    middle = (left + width - _RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{height - 8}" text-anchor="middle">{escape(x_label)}</text>')
    upright = f"translate(14 {(_TOP + height - _BOTTOM) / 2}) rotate(-90)"
    parts.append(f'<text transform="{upright}" text-anchor="middle">{escape(y_label)}</text>')
    return parts


def _tick_room(y_axis: Axis) -> float:
    return 18.0 if y_axis.scale == "log" else 32.0


def _class(number: int) -> str:
    """Of a series: eight colours, then the same ones in dashes."""
    return f"c{number % _COLOURS}{_DASHES[number // _COLOURS % len(_DASHES)]}"


def _drawn(one: Series, number: int, x_axis: Axis, y_axis: Axis) -> list[str]:
    parts = []
    if one.line:
        path = " ".join(f"{x_axis.at(x)},{y_axis.at(y)}" for x, y in one.line)
        kind = "curve law" if one.is_law else "curve"
        parts.append(f'<g class="{_class(number)}"><polyline class="{kind}" points="{path}"/></g>')
    for x, y, said in one.points:
        title = f"<title>{escape(visible(said))}</title>"
        parts.append(f'<circle class="{_class(number)}" cx="{x_axis.at(x)}" cy="{y_axis.at(y)}" r="3">{title}</circle>')
    return parts


def _swatch(number: int) -> str:
    return f'<g class="{_class(number)}"><polyline class="curve" points="0,5 28,5"/></g>'


def _legend(series: Sequence[Series], size: tuple[int, int]) -> list[str]:
    parts = []
    for number, one in enumerate(series):
        y = _TOP + 14 + 16 * number
        right = size[0] - _RIGHT - 8
        parts.append(f'<circle class="{_class(number)}" cx="{right}" cy="{y - 4}" r="3.5"/>')
        parts.append(f'<text x="{right - 8}" y="{y}" text-anchor="end">{escape(visible(one.label))}</text>')
    return parts
