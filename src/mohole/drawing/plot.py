"""Plots as SVG. Knows nothing of what they are of, nor of where they are shown."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from mohole.drawing.axis import Axis, Scale
from mohole.visible import visible

LARGE, SMALL = (560, 380), (390, 250)
"""Sizes of a plot, in pixels. Small ones stand three in a row."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 14, 14, 46
COLOURS = 8
_DASHES = ("", " dash1", " dash2")
_LEAST_SPAN = 8.0
LETTER = 7.2
"""Width of a letter, about, in pixels."""


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
    band: tuple[tuple[float, float, float], ...] = ()
    """x, low, high: an interval around the line, ascending in x."""


@dataclass(frozen=True)
class Level:
    """A level line: what a curve is to be compared with."""

    y: float
    label: str
    band: tuple[float, float] | None = None
    """An interval around it."""


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
    levels: Sequence[Level] = (),
    span: tuple[float, float] | None = None,
    marks: Sequence[tuple[float, float, str]] = (),
) -> Figure:
    """One figure.

    Args:
        levels: level lines, each with its label at one end; the axis reaches as far as they do.
        span: a stretch of the x axis that is shaded.
        marks: x, y and a short word beside that place; one that would lie on another is left out.
        floor, has_zero: of a linear y axis: what lies below is cut off; it begins at zero.

    Raises:
        ValueError: no points, or one that is not above zero on a logarithmic axis.
    """
    places = [(x, y) for one in series for x, y in [*((x, y) for x, y, _ in one.points), *one.line]]
    places += [(x, y) for one in series for x, low, high in one.band for y in (low, high)]
    places += [(places[0][0], y) for each in levels if places for y in (each.y, *(each.band or ()))]
    shown = [
        values for values, scale in zip(zip(*places, strict=True), (x_scale, y_scale), strict=False) if scale == "log"
    ]
    if not places or any(min(values) <= 0 for values in shown):
        raise ValueError(f"{title}: a plot needs points, and on logarithmic axes numbers above zero")
    width, height = size
    y_axis = Axis.over([y for _, y in places], height - _BOTTOM, _TOP, y_scale, floor=floor, has_zero=has_zero)
    longest = max((len(label) for _, label in y_axis.ticks(_tick_room(y_axis))), default=0)
    left = max(_LEFT, round(30 + LETTER * longest))
    x_axis = Axis.over([x for x, _ in places], left, width - _RIGHT, x_scale)
    # An SVG element inside of another one cuts off what leaves it.
    place = f"{left} {_TOP} {width - _RIGHT - left} {height - _TOP - _BOTTOM}"
    x, y, *size_of = place.split()
    inner = f'x="{x}" y="{y}" width="{size_of[0]}" height="{size_of[1]}" viewBox="{place}"'
    parts = [*_grid(x_axis, y_axis, x_label, y_label, size), f"<svg {inner}>"]
    parts += _spanned(span, x_axis, y_axis)
    parts += [part for each in levels for part in _level(each, series, x_axis, y_axis)]
    for number, one in enumerate(series):
        parts += _drawn(one, number, x_axis, y_axis)
    parts += _marked(marks, x_axis, y_axis)
    parts += ["</svg>", *(_legend(series, size) if has_legend else ())]
    return Figure(title, f"{title}: {y_label} over {x_label}", size, "".join(parts))


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
    return f"c{number % COLOURS}{_DASHES[number // COLOURS % len(_DASHES)]}"


def _spanned(span: tuple[float, float] | None, x_axis: Axis, y_axis: Axis) -> list[str]:
    """At least a few pixels wide: one value alone is a span too."""
    if span is None:
        return []
    first, last = (x_axis.at(x) for x in span)
    room = max(0.0, _LEAST_SPAN - (last - first)) / 2
    top, height = y_axis.end, y_axis.start - y_axis.end
    return [
        f'<rect class="span" x="{first - room:.1f}" y="{top}" width="{last - first + 2 * room:.1f}" height="{height}"/>'
    ]


def _level(each: Level, series: Sequence[Series], x_axis: Axis, y_axis: Axis) -> list[str]:
    parts, y = [], y_axis.at(each.y)
    if each.band is not None:
        bottom, top = (y_axis.at(edge) for edge in each.band)
        width = x_axis.end - x_axis.start
        parts.append(
            f'<rect class="level band" x="{x_axis.start}" y="{top}" width="{width}" height="{bottom - top:.1f}"/>'
        )
    parts.append(f'<line class="level" x1="{x_axis.start}" x2="{x_axis.end}" y1="{y}" y2="{y}"/>')
    # Above its line, but for one at the very top, where there is no room.
    beside = y + 13 if y - y_axis.end < 14 else y - 4
    if _is_freer_on_the_right(each, series, x_axis, y_axis):
        place = f'x="{x_axis.end - 4}" y="{beside:.1f}" text-anchor="end"'
    else:
        place = f'x="{x_axis.start + 4}" y="{beside:.1f}"'
    parts.append(f'<text class="tick" {place}>{escape(visible(each.label))}</text>')
    return parts


def _is_freer_on_the_right(each: Level, series: Sequence[Series], x_axis: Axis, y_axis: Axis) -> bool:
    """Where do the curves keep away from the level's label?"""
    y, room = y_axis.at(each.y), LETTER * len(each.label) + 12
    drawn = [(x_axis.at(x), abs(y_axis.at(value) - y)) for one in series for x, value in one.line]
    left = min((distance for x, distance in drawn if x < x_axis.start + room), default=math.inf)
    return min((distance for x, distance in drawn if x > x_axis.end - room), default=math.inf) >= left


def _marked(marks: Sequence[tuple[float, float, str]], x_axis: Axis, y_axis: Axis) -> list[str]:
    parts: list[str] = []
    taken: list[tuple[float, float, float]] = []
    for x, y, word in marks:
        width = LETTER * len(word)
        left, base = x_axis.at(x) - 6 - width, max(y_axis.at(y) - 4, y_axis.end + 11)
        if left < x_axis.start:  # else on the left, where a rising curve is not
            left += width + 13
        if all(abs(base - other) > 12 or left > start + wide or left + width < start for start, other, wide in taken):
            taken.append((left, base, width))
            parts.append(f'<text class="tick" x="{left:.1f}" y="{base:.1f}">{escape(visible(word))}</text>')
    return parts


def _drawn(one: Series, number: int, x_axis: Axis, y_axis: Axis) -> list[str]:
    parts = []
    if one.band:
        edge = [(x, high) for x, _, high in one.band] + [(x, low) for x, low, _ in reversed(one.band)]
        corners = " ".join(f"{x_axis.at(x)},{y_axis.at(y)}" for x, y in edge)
        parts.append(f'<g class="{_class(number)}"><polygon class="band" points="{corners}"/></g>')
    if one.line:
        path = " ".join(f"{x_axis.at(x)},{y_axis.at(y)}" for x, y in one.line)
        kind = "curve law" if one.is_law else "curve"
        parts.append(f'<g class="{_class(number)}"><polyline class="{kind}" points="{path}"/></g>')
    for x, y, said in one.points:
        title = f"<title>{escape(visible(said))}</title>"
        parts.append(f'<circle class="{_class(number)}" cx="{x_axis.at(x)}" cy="{y_axis.at(y)}" r="3">{title}</circle>')
    return parts


def swatch(number: int) -> str:
    """A short line in the colour and dashes of a series."""
    return f'<g class="{_class(number)}"><polyline class="curve" points="0,5 28,5"/></g>'


def _legend(series: Sequence[Series], size: tuple[int, int]) -> list[str]:
    parts = []
    for number, one in enumerate(series):
        y = _TOP + 14 + 16 * number
        right = size[0] - _RIGHT - 8
        parts.append(f'<circle class="{_class(number)}" cx="{right}" cy="{y - 4}" r="3.5"/>')
        parts.append(f'<text x="{right - 8}" y="{y}" text-anchor="end">{escape(visible(one.label))}</text>')
    return parts
