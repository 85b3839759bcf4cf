"""Values as HTML for notebooks: cards in the look of the app and the report, in light and dark. No script, nothing from outside.

Whatever is not `Html` is text, and is escaped and made visible here: a label or a document cannot end its element.
"""

from collections.abc import Iterable, Sequence
from html import escape
from typing import NewType

from mohole.visible import visible

Html = NewType("Html", str)
"""What has been escaped already."""

_WIDTH, _HEIGHT, _BOTTOM = 320, 96, 18
_HOT = 0.55
_LIGHT = (
    "--paper:#fff;--ink:#1c1f25;--soft:#586070;--line:#e3e0d8;--accent:#0a6a70;--warm:#ff9a1f;--on-hot:#120a00;"
    "--bad:#a3402c;color-scheme:light"
)
_DARK = (
    "--paper:#1a1e24;--ink:#e9e7e2;--soft:#a4abb8;--line:#2b3038;--accent:#62cfc9;--warm:#ffa033;--on-hot:#120a00;"
    "--bad:#ef9a84;color-scheme:dark"
)
# A notebook's own theme stands before the system's: JupyterLab and VS Code say theirs at the body, Colab at the root.
_STYLE = f"""
.mohole{{{_LIGHT};background:var(--paper);color:var(--ink);border:1px solid var(--line);border-radius:10px;padding:.8rem 1rem;
  max-width:62rem;font:14px/1.5 system-ui,"Noto Sans","Noto Sans CJK SC",sans-serif;font-variant-numeric:tabular-nums}}
@media (prefers-color-scheme:dark){{.mohole{{{_DARK}}}}}
body[data-jp-theme-light="true"] .mohole,.vscode-light .mohole,html[theme="light"] .mohole{{{_LIGHT}}}
body[data-jp-theme-light="false"] .mohole,.vscode-dark .mohole,html[theme="dark"] .mohole{{{_DARK}}}
.mohole h3{{font-size:1.15rem;margin:0 0 .2rem;color:inherit;overflow-wrap:anywhere}}
.mohole h4{{font-size:.9rem;margin:.8rem 0 .3rem;color:var(--soft)}}
.mohole p{{margin:0 0 .4rem;color:inherit}} .mohole .soft{{color:var(--soft)}}
.mohole .sides{{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.6rem,1fr));gap:0 1.4rem;align-items:start}}
.mohole table{{border-collapse:collapse;width:100%;margin:0;font-size:.92em;color:inherit;border:0}}
.mohole thead,.mohole tr,.mohole tr:nth-child(even),.mohole tr:hover{{background:none}}
.mohole th,.mohole td{{padding:.18rem .6rem .18rem 0;border:0;border-top:1px solid var(--line);text-align:right;
  vertical-align:top;white-space:nowrap;max-width:none;background:none;color:inherit}}
.mohole thead th{{border-top:0;color:var(--soft);font-weight:600}}
.mohole :is(th,td).words{{text-align:left;font-weight:400;white-space:normal;overflow-wrap:break-word}}
.mohole thead th.words{{font-weight:600}}
.mohole .scroll{{overflow-x:auto}} .mohole summary{{cursor:pointer;color:var(--soft)}}
.mohole .text{{white-space:pre-wrap;overflow-wrap:anywhere;unicode-bidi:isolate;margin:0;padding:.25rem 0;
  border-top:1px solid var(--line)}}
.mohole bdi{{white-space:pre}} .mohole .words bdi{{white-space:pre-wrap}}
.mohole mark{{background:color-mix(in srgb,var(--warm) var(--heat,50%),transparent);color:inherit;border-radius:3px;padding:0}}
.mohole mark.hot{{color:var(--on-hot)}} .mohole mark.focus{{text-decoration:underline;text-underline-offset:3px}}
.mohole svg{{display:block;width:100%;max-width:24rem;height:auto;overflow:visible}}
.mohole svg rect{{fill:var(--accent)}} .mohole svg text{{fill:var(--soft);font-size:11px}} .mohole svg line{{stroke:var(--soft)}}
.mohole .warning{{border-left:4px solid var(--warm);padding-left:.7rem}}
"""


def card(title: str, *parts: Html) -> str:
    """A whole output of a notebook, its style in it."""
    return f'<div class="mohole"><style>{_STYLE}</style><h3>{_text(title)}</h3>{"".join(parts)}</div>'


def note(*texts: str, kind: str = "") -> Html:
    """A paragraph for each text. `kind`: soft or warning."""
    return Html("".join(f'<p class="{kind}">{_text(each)}</p>' for each in texts))


def part(title: str, *inside: Html) -> Html:
    """Something with a heading."""
    return Html(f"<div><h4>{_text(title)}</h4>{''.join(inside)}</div>")


def sides(*parts: Html) -> Html:
    """Beside one another, where there is room."""
    return Html(f'<div class="sides">{"".join(parts)}</div>')


def folded(title: str, *inside: Html) -> Html:
    """Seen when it is asked for."""
    return Html(f"<details><summary>{_text(title)}</summary>{''.join(inside)}</details>")


def table(heads: Sequence[str], lines: Iterable[Sequence[str]], *, words: Sequence[int] = (0,)) -> Html:
    """A table. `words`: columns that are read from the left; numbers are compared from the right."""

    def row(cells: Sequence[str], tag: str) -> str:
        kinds = ("words" if i in words else "" for i in range(len(cells)))
        inside = (
            f'<{tag} class="{kind}"><bdi>{_text(cell)}</bdi></{tag}>' for kind, cell in zip(kinds, cells, strict=True)
        )
        return f"<tr>{''.join(inside)}</tr>"

    head = f"<thead>{row(heads, 'th')}</thead>" if any(heads) else ""
    return Html(
        f'<div class="scroll"><table>{head}<tbody>{"".join(row(each, "td") for each in lines)}</tbody></table></div>'
    )


def entries(pieces: Iterable[tuple[str, float]]) -> Html:
    """Vocabulary entries with their logits; spaces at their ends are dots, as nobody would see them."""
    lines = [(_ends_shown(piece), signed(logit)) for piece, logit in pieces]
    return table(("", "logit"), lines)


def signed(value: float, digits: int = 2) -> str:
    """A difference. Rounded to nothing it has no sign.

    >>> signed(1.2), signed(-1.2), signed(-0.001)
    ('+1.20', '−1.20', '0.00')
    """
    text = f"{value:+.{digits}f}"
    return text.replace("-", "−") if float(text) else text[1:]


def _ends_shown(piece: str) -> str:
    bare = piece.strip(" ")
    before = len(piece) - len(piece.lstrip(" "))
    return "·" * before + bare + "·" * (len(piece) - before - len(bare))


def bars(counts: Sequence[int], low: str, high: str, label: str) -> Html:
    """A histogram, heights by square root so that the rare is seen beside the frequent. `low`, `high`: what its ends are."""
    top, step = max([1, *counts]), _WIDTH / max(1, len(counts))
    floor = _HEIGHT - _BOTTOM
    drawn = []
    for i, count in enumerate(counts):
        height = max(1.5, floor * (count / top) ** 0.5) if count else 0
        drawn.append(
            f'<rect x="{i * step + 0.6:.2f}" y="{floor - height:.2f}" width="{max(0.8, step - 1.2):.2f}" height="{height:.2f}">'
            f"<title>{count:,}</title></rect>"
        )
    return Html(
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{_text(label)}">{"".join(drawn)}'
        f'<line x1="0" x2="{_WIDTH}" y1="{floor}" y2="{floor}"/><text x="0" y="{_HEIGHT - 4}">{_text(low)}</text>'
        f'<text x="{_WIDTH}" y="{_HEIGHT - 4}" text-anchor="end">{_text(high)}</text></svg>'
    )


def passage(pieces: Sequence[str], shares: Sequence[float], focus: int) -> Html:
    """A stretch of text, its tokens marked by their share of the maximum."""
    parts = []
    for i, (piece, share) in enumerate(zip(pieces, shares, strict=True)):
        if share <= 0:
            parts.append(_text(piece))
            continue
        body = piece.lstrip(" ") or piece
        kinds = " ".join(name for name, holds in (("hot", share > _HOT), ("focus", i == focus)) if holds)
        heat = 66 + 30 * (min(share, 1) - _HOT) / (1 - _HOT) if share > _HOT else 12 + 30 * share / _HOT
        gap = piece[: len(piece) - len(body)]
        parts.append(
            f'{gap}<mark class="{kinds}" style="--heat:{heat:.0f}%" title="{share:.0%} of maximum">{_text(body)}</mark>'
        )
    return Html(f'<p class="text" dir="auto">{"".join(parts)}</p>')


def _text(text: str) -> str:
    return escape(visible(text))
