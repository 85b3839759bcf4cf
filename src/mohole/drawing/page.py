"""Plots and tables as one file: a page, or one drawing. No script, no network."""

import hashlib
import re
from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from mohole.drawing.plot import COLOURS, LETTER, SMALL, Figure, swatch
from mohole.storage.files import write_whole
from mohole.visible import visible

_COLUMNS, _GAP = 3, 24
_STYLE = """
:root { color-scheme: light dark; --paper: #f8f7f3; --ink: #1c1f25; --soft: #586070; --line: #d9d5cb;
  --c0: #0a6a70; --c1: #c25e00; --c2: #5a4fcf; --c3: #a3402c; --c4: #2f7d32; --c5: #b0307f; --c6: #8a6d00; --c7: #3b6ea8; }
@media (prefers-color-scheme: dark) { :root { --paper: #13161a; --ink: #e9e7e2; --soft: #a4abb8; --line: #333942;
  --c0: #62cfc9; --c1: #ffa033; --c2: #a59cff; --c3: #ef9a84; --c4: #86d08a; --c5: #f08cc8; --c6: #e2c55a; --c7: #8fbdf0; } }
body { margin: 2rem auto; width: min(1180px, 100% - 2rem); background: var(--paper); color: var(--ink); }
body { font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin: 1.6rem 0 0; } .note { color: var(--soft); max-width: 80ch; }
.plots { display: flex; flex-wrap: wrap; gap: 1.5rem; } figure { margin: 0; flex: 1 1 420px; } figcaption { font-weight: 600; }
.plots.small { display: grid; grid-template-columns: repeat(auto-fill, minmax(330px, 1fr)); }
figure > svg { width: 100%; height: auto; } svg text { font-size: 12px; fill: var(--ink); } svg .tick { fill: var(--soft); }
.grid { stroke: var(--line); stroke-width: 1; } .curve { fill: none; stroke-width: 1.6; } .law { stroke-dasharray: 5 4; }
.band { stroke: none; opacity: .17; } .level { stroke: var(--soft); stroke-dasharray: 2 4; } .level.band { fill: var(--soft); }
.band.level { stroke: none; } .span { fill: var(--c4); opacity: .16; }
.dash1 { stroke-dasharray: 7 3; } .dash2 { stroke-dasharray: 2 3; } circle { stroke-dasharray: none; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.4rem; } .legend svg { width: 28px; height: 10px; margin-right: .4rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; margin: 1rem 0; }
th, td { text-align: right; padding: .2rem .7rem; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child, .words { text-align: left; } .wide { overflow-x: auto; }
.words:last-child { min-width: 11rem; }
""" + "".join(f".c{n} {{ stroke: var(--c{n}); fill: var(--c{n}); }}\n" for n in range(COLOURS))


@dataclass(frozen=True)
class Sheet:
    """A table of a page."""

    heads: Sequence[str]
    lines: Sequence[Sequence[str]]
    title: str = ""


def write_drawing(
    out: Path, title: str, notes: Sequence[str], plots: Sequence[Figure], legend: Sequence[str] = ()
) -> None:
    """Write small plots as one SVG drawing, whole or not at all: three in a row, light colours in it, alike in every program."""
    cell_width, cell_height = SMALL[0] + _GAP, SMALL[1] + 22 + _GAP
    width = min(len(plots), _COLUMNS) * cell_width + _GAP
    parts = [f'<text class="title" x="{_GAP}" y="38">{escape(visible(title))}</text>']
    y = 52.0
    for line in (line for note in notes for line in _folded(visible(note), int((width - 2 * _GAP) / LETTER * 1.1))):
        y += 18
        parts.append(f'<text class="tick" x="{_GAP}" y="{y}">{escape(line)}</text>')
    x = float(_GAP)
    y += 26 if legend else 0
    for number, label in enumerate(map(visible, legend)):
        needed = 56 + LETTER * len(label)
        if x + needed > width and x > _GAP:
            x, y = float(_GAP), y + 20
        parts += [f'<g transform="translate({x} {y - 9})">{swatch(number)}</g>']
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
    kept = "\n".join(line for line in _STYLE.splitlines() if line.startswith((".grid", ".c", ".dash1", ".band")))
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
    sheets: Sequence[Sheet],
    *,
    legend: Sequence[str] = (),
    before: Sequence[Sheet] = (),
) -> None:
    """Write a page of plots with tables below, whole or not at all. The same values give the same bytes.

    Args:
        legend: names of the series, where they are the same ones in all plots.
        before: tables above the plots, of what must be known before anything else is believed.
    """
    digest = b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:"
    text = "".join(f'<p class="note">{escape(visible(note))}</p>' for note in notes)
    swatches = (
        f'<span><svg viewBox="0 0 28 10">{swatch(n)}</svg>{escape(visible(x))}</span>' for n, x in enumerate(legend)
    )
    above = "".join(map(_table, before))
    named = f'<p class="legend">{"".join(swatches)}</p>' if legend else ""
    kind = "plots small" if plots and plots[0].size == SMALL else "plots"
    write_whole(
        out,
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>{escape(visible(title))} · mohole</title><style>{_STYLE}</style></head>"
        f'<body><h1>{escape(visible(title))}</h1>{text}{above}{named}<div class="{kind}">{"".join(map(_element, plots))}</div>'
        f"{''.join(map(_table, sheets))}</body></html>\n",
    )


def _table(sheet: Sheet) -> str:
    classes = [' class="words"' if any(map(_is_prose, column)) else "" for column in zip(*sheet.lines, strict=True)]
    classes = classes or [""] * len(sheet.heads)
    cells = "".join(
        f"<tr>{''.join(f'<td{css}>{_cell(cell)}</td>' for cell, css in zip(line, classes, strict=True))}</tr>"
        for line in sheet.lines
    )
    head = "".join(f"<th{css}>{escape(visible(name))}</th>" for name, css in zip(sheet.heads, classes, strict=True))
    title = f"<h2>{escape(visible(sheet.title))}</h2>" if sheet.title else ""
    return f'{title}<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{cells}</tbody></table></div>'


def _cell(cell: str) -> str:
    """An interval in brackets is not broken in two: the line may end before it."""
    return escape(re.sub(r"\[[^\]]*\]", lambda found: found[0].replace(" ", "\N{NO-BREAK SPACE}"), visible(cell)))


def _is_prose(cell: str) -> bool:
    """Words are read from the left; numbers, with a unit behind them or none, are compared from the right."""
    return cell[:1].isalpha() and cell != "undefined"


def _element(figure: Figure) -> str:
    width, height = figure.size
    label = escape(visible(figure.label))
    drawing = f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}">{figure.drawing}</svg>'
    return f"<figure><figcaption>{escape(visible(figure.title))}</figcaption>{drawing}</figure>"
