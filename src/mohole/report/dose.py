"""A sweep of strengths as pictures and as a table in a terminal: effect, costs and the usable range. Measures nothing."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.text import Text

from mohole.act import DoseResponse, Point
from mohole.drawing import SMALL, Figure, Level, Series, Sheet, plot, write_page
from mohole.metrics import Measure
from mohole.metrics.written import NGRAM
from mohole.report.terminal import plain_table
from mohole.visible import visible

_EFFECTS = ("active", "words")
_HEADS = {"perplexity": "perpl.", "repeated": "repeat"}
_SHOWN_PROMPTS = 4
_VERDICT = 15
"""Letters in a line of what of the rule does not hold."""
_DRAWN = 2.0
"""Times the largest usable strength: what lies beyond would press the curves flat where they matter."""
_TITLES = {
    "active": "Feature active",
    "words": "Words of the concept",
    "perplexity": "Perplexity to the unsteered model",
    "repeated": "Said before",
    "kl": "Predictions on other text",
    "tasks": "Right answers to other tasks",
}
_UNITS = {
    "active": "share of written tokens",
    "words": "share of written tokens",
    "perplexity": "perplexity of what was written",
    "repeated": f"share of {NGRAM}-grams",
    "kl": "KL, nats per token",
    "tasks": "share of prompts",
}
_COLUMNS = {
    "active": "feature active, share of tokens",
    "words": "words, share of tokens",
    "perplexity": "perplexity",
    "repeated": f"said before, share of {NGRAM}-grams",
    "kl": "other text, KL in nats per token",
    "tasks": "other tasks, share right",
}


def write_dose_page(out: Path, dose: DoseResponse) -> None:
    """Write the page of a sweep, whole or not at all: light and dark, no script, no network."""
    title = f"Dose and response: {dose.of}"
    n_left_out = len(dose.points) - len(_drawn(dose))
    left_out = f"The {n_left_out} strongest are not drawn, so that the rest can be seen; the tables have them."
    write_page(
        out,
        title,
        [*_notes(dose), *([left_out] if n_left_out else [])],
        list(_figures(dose)),
        [_numbers(dose), *_tasks(dose), _texts(dose)],
    )


def dose_text(dose: DoseResponse) -> RenderableType:
    """A row for each strength: the effect with its interval, the costs, and what of the rule does not hold. Fits 80 letters."""
    table = plain_table(f"Dose and response: {visible(dose.of)}  {visible(dose.label)}".rstrip())
    table.collapse_padding = True  # without, the last column is cut at 80
    names = [name for name in _names(dose) if name not in _EFFECTS or name == dose.effect]  # the other is on the page
    for head in ("dose", *(_HEADS.get(name, name) for name in names), "against it"):
        is_last = head == "against it"
        table.add_column(
            head, justify="left" if is_last else "right", no_wrap=not is_last, min_width=_VERDICT if is_last else None
        )
    for point in (dose.unsteered, *dose.points):
        cells = [_cell(point.measures[name], with_interval=name == dose.effect) for name in names]
        verdict = _verdict(point, dose).removeprefix("no: ").replace("yes", "nothing: usable")
        table.add_row(_strength(point), *cells, verdict, style="" if _is_usable(point) else "dim")
    lines = [
        Text(_range_said(dose), "bold"),
        *(Text(hint, "bold") for hint in _hints(dose)),
        *(Text(visible(note), "dim") for note in [*_notes(dose)][2:]),
    ]
    return Group(table, *lines)


def _names(dose: DoseResponse) -> list[str]:
    return [name for name in _TITLES if name in dose.unsteered.measures]


def _is_usable(point: Point) -> bool:
    return point.strength is None or not point.broken


def _strength(point: Point) -> str:
    return "none" if point.strength is None else f"{point.strength:g}×"


def _cell(measure: Measure, *, with_interval: bool) -> Text:
    if measure.value is None:
        return Text("undefined")
    return Text.assemble(_figure(measure.value), (_interval(measure) if with_interval else "", "dim"))


def _interval(measure: Measure) -> str:
    if measure.low is None or measure.high is None:
        return ""
    return f" [{_figure(measure.low)}, {_figure(measure.high)}]"


def _figure(value: float) -> str:
    """
    >>> _figure(0.0123), _figure(12.345), _figure(12345.6)
    ('0.012', '12.3', '12,346')
    """
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}"


def _verdict(point: Point, dose: DoseResponse) -> str:
    if point.strength is None:
        return ""
    usable = dose.usable
    inside = usable.low is not None and usable.high is not None and usable.low <= point.strength <= usable.high
    return "no: " + ", ".join(point.broken) if point.broken else "yes" if inside else "yes, apart from the range"


def _range_said(dose: DoseResponse) -> str:
    usable = dose.usable
    if usable.low is None or usable.high is None:
        return f"No strength of the {len(dose.points)} that were tried is usable."
    span = f"{usable.low:g}" if usable.low == usable.high else f"{usable.low:g} to {usable.high:g}"
    return f"Usable: {span} {usable.unit}."


def _hints(dose: DoseResponse) -> Iterator[str]:
    """What to try where no strength is usable."""
    if dose.usable.low is None:
        if not all("where" in each for each in dose.interventions):
            kept = dose.of.startswith("variant ")
            how = "save the variant with --where response" if kept else "--where response"
            yield f"What acts at answers alone may cost less of other tasks: {how}, and sweep again."
        yield "The bounds are judgement: --max-perplexity, --max-repeated, --max-kl and --max-lost move them."


def _notes(dose: DoseResponse) -> Iterator[str]:
    yield _range_said(dose)
    yield f"Swept: {dose.of}{f', {dose.label}' if dose.label else ''}. Strengths are {dose.unit}."
    yield f"The rule: {dose.usable.rule}."
    looked_for = [f"active: {' or '.join(dose.latents)}"] if dose.latents else []
    if dose.words:
        looked_for.append(f"words: {', '.join(repr(word) for word in dose.words)} ({dose.words_are})")
    yield "Looked for in what was written: " + "; ".join(looked_for) + "."
    measures = dose.unsteered.measures
    counts = [
        f"{measures[name].n:,} {measures[name].n_of} ({name})" for name in _names(dose) if name in ("kl", "tasks")
    ]
    n_texts, n_prompts = dose.usable.n_texts, len(dose.prompts)
    yield (
        f"At each strength {n_texts} texts of at most {dose.max_new_tokens} tokens after {n_prompts} prompts, "
        f"at temperature {dose.temperature:g}, the same draws at each; {'; '.join(counts)}. "
        "Intervals: 95 %; prompts or texts resampled, of tasks Wilson's; those of the costs are on the page."
    )


# the page -------------------------------------------------------------------------------------------------


def _figures(dose: DoseResponse) -> Iterator[Figure]:
    for name in (dose.effect, *(name for name in _names(dose) if name not in ("active", "words"))):
        figure = _figure_of(dose, name)
        if figure is not None:
            yield figure
    against = _against(dose)
    if against is not None:
        yield against


def _figure_of(dose: DoseResponse, name: str) -> Figure | None:
    is_log = _has_log_axis(dose)
    found = [(each.strength or 0.0, each.measures[name]) for each in _drawn(dose)]
    found = [(x, measure) for x, measure in found if measure.value is not None and (x > 0 or not is_log)]
    if len(found) < 2:
        return None
    line = tuple((x, measure.value or 0.0) for x, measure in found)
    has_band = all(measure.low is not None and measure.high is not None for _, measure in found)
    band = tuple((x, measure.low or 0.0, measure.high or 0.0) for x, measure in found) if has_band else ()
    said = tuple((x, y, f"{x:g}×: {_said(measure)}") for (x, y), (_, measure) in zip(line, found, strict=True))
    is_perplexity = name == "perplexity"
    # Of the series' colours the first is an effect's and the second a cost's, in every plot.
    series = [Series(name, said, line, band=band)]
    if name != dose.effect:
        series = [Series(""), *series]
    return plot(
        f"{_TITLES[name]}: the effect" if name == dose.effect else _TITLES[name],
        f"strength, {dose.unit}",
        _UNITS[name],
        series,
        x_scale="log" if is_log else "linear",
        y_scale="log" if is_perplexity else "linear",
        size=SMALL,
        has_legend=False,
        has_zero=not is_perplexity,
        levels=[*_levels(dose, name)],
        span=_span(dose),
    )


def _levels(dose: DoseResponse, name: str) -> Iterator[Level]:
    base = dose.unsteered.measures[name]
    if base.value is None:
        return
    if name != "kl":
        band = (base.low, base.high) if base.low is not None and base.high is not None else None
        yield Level(base.value, "unsteered", band)
    limit = dose.bounds.limit(name, base.value)
    if limit is not None:
        yield Level(limit, "at least" if name == "tasks" else "at most")


def _drawn(dose: DoseResponse) -> tuple[Point, ...]:
    """The strengths that are drawn: all, where no positive one is usable."""
    high = dose.usable.high
    if high is None or high <= 0:
        return dose.points
    return tuple(each for each in dose.points if each.strength is not None and each.strength <= _DRAWN * high)


def _has_log_axis(dose: DoseResponse) -> bool:
    strengths = [each.strength or 0.0 for each in _drawn(dose)]
    return min(strengths) >= 0 and sum(strength > 0 for strength in strengths) > 1


def _span(dose: DoseResponse) -> tuple[float, float] | None:
    usable = dose.usable
    if usable.low is None or usable.high is None or (usable.low <= 0 and _has_log_axis(dose)):
        return None
    return usable.low, usable.high


def _against(dose: DoseResponse) -> Figure | None:
    """Effect against cost: one point for each strength, the usable ones in the effect's colour."""
    places = [
        (point.measures["perplexity"].value, point.measures[dose.effect].value, point)
        for point in (dose.unsteered, *_drawn(dose))
    ]
    known = [(x, y, point) for x, y, point in places if x is not None and y is not None]
    if len(known) < 2:
        return None
    path = tuple((x, y) for x, y, point in known if point.strength is not None)
    usable = [each for each in known if each[2].strength is not None and not each[2].broken]
    other = [each for each in known if each not in usable]

    def points(some: Sequence[tuple[float, float, Point]]) -> tuple[tuple[float, float, str], ...]:
        return tuple((x, y, f"{_strength(point)}: effect {y:.3f}, perplexity {_figure(x)}") for x, y, point in some)

    series = [Series("usable", points(usable)), Series("not usable", points(other), path)]
    return plot(
        "Effect against cost" + (": usable strengths teal" if usable else ""),
        "cost: perplexity to the unsteered model",
        f"effect: {_UNITS[dose.effect]}",
        series,
        y_scale="linear",
        size=SMALL,
        has_legend=False,
        has_zero=True,
        marks=[(x, y, _strength(point)) for x, y, point in known if _is_named(point, dose)],
    )


def _is_named(point: Point, dose: DoseResponse) -> bool:
    """The weak ones lie upon one another."""
    return point.strength is None or dose.usable.low is None or point.strength >= dose.usable.low


def _said(measure: Measure) -> str:
    if measure.value is None:
        return "undefined"
    return f"{_figure(measure.value)}{_interval(measure)}"


def _numbers(dose: DoseResponse) -> Sheet:
    names = _names(dose)
    heads = ["strength", *(_COLUMNS[name] for name in names), "usable"]
    lines = [
        [_strength(point), *(_said(point.measures[name]) for name in names), _verdict(point, dose)]
        for point in (dose.unsteered, *dose.points)
    ]
    return Sheet(heads, lines, "Every strength, with 95 % intervals")


def _tasks(dose: DoseResponse) -> list[Sheet]:
    if not dose.unsteered.tasks:
        return []
    points = (dose.unsteered, *dose.points)
    heads = ["task", *(_strength(point) for point in points)]
    lines = [
        [task.name, *(f"{point.tasks[place].value:.2f}" for point in points)]
        for place, task in enumerate(dose.unsteered.tasks)
    ]
    return [Sheet(heads, lines, f"Right answers by task, share of {dose.unsteered.tasks[0].n} prompts each")]


def _texts(dose: DoseResponse) -> Sheet:
    """The first text of the first prompts at each strength."""
    shown = range(min(_SHOWN_PROMPTS, len(dose.prompts)))
    lines = [
        [_strength(point), *(_one_line(point.texts[place * dose.n_samples]) for place in shown)]
        for point in (dose.unsteered, *dose.points)
    ]
    return Sheet(["strength", *(_one_line(dose.prompts[place]) for place in shown)], lines, "What was written")


def _one_line(text: str) -> str:
    return " ".join(text.split("\n")).strip() or "(nothing)"
