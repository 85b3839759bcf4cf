"""Plots with logarithmic axes as SVG, and the page that holds them: one file, no script, no network. Knows nothing of sweeps."""

import hashlib
import math
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from mohole.visible import visible

_WIDTH, _HEIGHT = 560, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 14, 14, 46
_COLOURS = 8
_STYLE = """
:root { color-scheme: light dark; --paper: #f8f7f3; --ink: #1c1f25; --soft: #586070; --line: #d9d5cb;
  --c0: #0a6a70; --c1: #c25e00; --c2: #5a4fcf; --c3: #a3402c; --c4: #2f7d32; --c5: #b0307f; --c6: #8a6d00; --c7: #3b6ea8; }
@media (prefers-color-scheme: dark) { :root { --paper: #13161a; --ink: #e9e7e2; --soft: #a4abb8; --line: #333942;
  --c0: #62cfc9; --c1: #ffa033; --c2: #a59cff; --c3: #ef9a84; --c4: #86d08a; --c5: #f08cc8; --c6: #e2c55a; --c7: #8fbdf0; } }
body { margin: 2rem auto; width: min(1180px, 100% - 2rem); background: var(--paper); color: var(--ink); }
body { font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; } .note { color: var(--soft); max-width: 80ch; }
.plots { display: flex; flex-wrap: wrap; gap: 1.5rem; } figure { margin: 0; flex: 1 1 420px; } figcaption { font-weight: 600; }
svg { width: 100%; height: auto; } svg text { font-size: 12px; fill: var(--ink); } svg .tick { fill: var(--soft); }
.grid { stroke: var(--line); stroke-width: 1; } .curve { fill: none; stroke-width: 1.6; } .law { stroke-dasharray: 5 4; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; margin: 1rem 0; }
th, td { text-align: right; padding: .2rem .7rem; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
""" + "".join(f".c{n} {{ stroke: var(--c{n}); fill: var(--c{n}); }}\n" for n in range(_COLOURS))


@dataclass(frozen=True)
class Series:
    """Points of one colour."""

    label: str
    points: tuple[tuple[float, float, str], ...]
    """x, y, and what is said of the point. Both numbers above zero."""
    line: tuple[tuple[float, float], ...] = ()
    """A line through these places, ascending in x."""
    is_law: bool = False
    """The line is a fit, not a connection of points: it is drawn dashed."""


@dataclass(frozen=True)
class _Axis:
    """Logarithmic, from `low` to `high`, onto pixels."""

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def over(cls, values: Sequence[float], start: float, end: float) -> "_Axis":
        low, high = min(values), max(values)
        room = max((high / low) ** 0.06, 1.05)
        return cls(low / room, high * room, start, end)

    def at(self, value: float) -> float:
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self) -> list[float]:
        """1, 2 and 5 times the powers of ten; more of them within a decade, the powers alone over more than three."""
        span = self.high / self.low
        steps = (1.0,) if span > 1000 else (1.0, 2.0, 5.0) if span > 8 else (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0)
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        found = [step * 10.0**decade for decade in decades for step in steps]
        inside = [value for value in found if self.low <= value <= self.high]
        if len(inside) > 1:
            return inside
        return [self.low * (self.high / self.low) ** share for share in (0.1, 0.5, 0.9)]


def plot(title: str, x_label: str, y_label: str, series: Sequence[Series]) -> str:
    """One figure. Raises: ValueError: no points, or one that is not above zero."""
    places = [(x, y) for one in series for x, y in [*((x, y) for x, y, _ in one.points), *one.line]]
    if not places or min(min(place) for place in places) <= 0:
        raise ValueError(f"{title}: a plot with logarithmic axes needs points, and numbers above zero")
    x_axis = _Axis.over([x for x, _ in places], _LEFT, _WIDTH - _RIGHT)
    y_axis = _Axis.over([y for _, y in places], _HEIGHT - _BOTTOM, _TOP)
    parts = [*_grid(x_axis, y_axis, x_label, y_label)]
    for number, one in enumerate(series):
        parts += _drawn(one, number % _COLOURS, x_axis, y_axis)
    parts += _legend(series)
    label = escape(visible(f"{title}: {y_label} over {x_label}"))
    drawing = f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
    return f"<figure><figcaption>{escape(visible(title))}</figcaption>{drawing}</figure>"


def write_page(
    out: Path,
    title: str,
    notes: Sequence[str],
    plots: Sequence[str],
    heads: Sequence[str],
    lines: Sequence[Sequence[str]],
) -> None:
    """Write a page of plots with a table below. The same values give the same bytes."""
    digest = b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:"
    cells = "".join(f"<tr>{''.join(f'<td>{escape(visible(cell))}</td>' for cell in line)}</tr>" for line in lines)
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    text = "".join(f'<p class="note">{escape(visible(note))}</p>' for note in notes)
    out.write_text(
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>{escape(visible(title))} · mohole</title><style>{_STYLE}</style></head>"
        f'<body><h1>{escape(visible(title))}</h1>{text}<div class="plots">{"".join(plots)}</div>'
        f"<table><thead><tr>{head}</tr></thead><tbody>{cells}</tbody></table></body></html>\n",
        encoding="utf-8",
    )


def _grid(x_axis: _Axis, y_axis: _Axis, x_label: str, y_label: str) -> list[str]:
    parts = []
    for value in x_axis.ticks():
        x = x_axis.at(value)
        parts.append(f'<line class="grid" x1="{x}" x2="{x}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>')
        parts.append(
            f'<text class="tick" x="{x}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle">{_tick(value)}</text>'
        )
    for value in y_axis.ticks():
        y = y_axis.at(value)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">{_tick(value)}</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{_HEIGHT - 8}" text-anchor="middle">{escape(x_label)}</text>')
    upright = f"translate(14 {(_TOP + _HEIGHT - _BOTTOM) / 2}) rotate(-90)"
    parts.append(f'<text transform="{upright}" text-anchor="middle">{escape(y_label)}</text>')
    return parts


def _tick(value: float) -> str:
    return f"{value:,.0f}" if 10 <= value < 1e6 else f"{value:.3g}"


def _drawn(one: Series, colour: int, x_axis: _Axis, y_axis: _Axis) -> list[str]:
    parts = []
    if one.line:
        path = " ".join(f"{x_axis.at(x)},{y_axis.at(y)}" for x, y in one.line)
        kind = "curve law" if one.is_law else "curve"
        parts.append(f'<g class="c{colour}"><polyline class="{kind}" points="{path}"/></g>')
    for x, y, said in one.points:
        title = f"<title>{escape(visible(said))}</title>"
        parts.append(f'<circle class="c{colour}" cx="{x_axis.at(x)}" cy="{y_axis.at(y)}" r="3.5">{title}</circle>')
    return parts


def _legend(series: Sequence[Series]) -> list[str]:
    parts = []
    for number, one in enumerate(series):
        y = _TOP + 14 + 16 * number
        right = _WIDTH - _RIGHT - 8
        parts.append(f'<circle class="c{number % _COLOURS}" cx="{right}" cy="{y - 4}" r="3.5"/>')
        parts.append(f'<text x="{right - 8}" y="{y}" text-anchor="end">{escape(visible(one.label))}</text>')
    return parts
