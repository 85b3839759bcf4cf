"""Evaluations side by side, for a terminal, a page and JSON: every number with its interval. Measures nothing itself."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Group, RenderableType
from rich.text import Text

from mohole.drawing import SMALL, Figure, Scale, Series, Sheet, plot, write_page
from mohole.evaluate.results import Evaluation
from mohole.metrics import Measure
from mohole.metrics.measure import as_json
from mohole.record import write_json
from mohole.report.evaluated import Difference, Evaluated, difference, first_other, growths
from mohole.report.growth import Growth, Step
from mohole.report.place import check_place
from mohole.report.terminal import plain_table
from mohole.visible import visible

Float64 = NDArray[np.float64]

MAIN = ("fvu", "l0", "cosine_centred", "relative_bias", "ce_recovered", "excess_ce", "kl", "dead", "dense")
"""What the terminal shows; the page has every number."""


def comparison_text(found: Sequence[Evaluated]) -> RenderableType:
    """The main numbers as a table for a terminal: one line for each number, one column for each dictionary."""
    table = plain_table(
        "Dictionaries on held-out documents" if len(found) > 1 else f"{found[0].name}, held-out documents"
    )
    table.add_column("measure")
    for each in found:
        table.add_column(visible(each.name), justify="right", overflow="fold")
    for name in MAIN:
        table.add_row(name, *(_shown(each, name) for each in found))
    if len(found) > 1:
        table.add_section()
        for name in MAIN:
            apart = [difference(found[0], other, name) for other in found[1:]]
            if any(apart):
                table.add_row(f"{name}, difference", "", *(_apart(each) for each in apart))
    grown = [_growth_table(growth) for growth in growths(found)]
    notes = [Text(note, "dim") for note in _notes(found)]
    cautions = [
        Text.assemble((f"{each.name}: ", "bold"), visible(caution.sentence))
        for each in found
        for caution in each.evaluation.warnings
    ]
    return Group(table, *grown, *notes, *cautions)


def write_comparison(out: Path, found: Sequence[Evaluated]) -> None:
    """Write the page: frontier, densities, every number with its interval, differences, tasks, errors by class, warnings.

    Raises:
        ConfigError: another kind of file, or one in an artifact.
    """
    check_place(out, "--page", (".html", ".htm"))
    names = [each.name for each in found]
    title = "Evaluation of " + ", ".join(names) if len(found) < 4 else f"Evaluations of {len(found)} dictionaries"
    legend = names if len(found) > 1 else []
    plots = [*_frontiers(found), *map(_growth_plot, growths(found)), _densities(found)]
    write_page(out, title, _notes(found), plots, _sheets(found), legend=legend, before=_cautions(found))


def write_json_of(out: Path, found: Sequence[Evaluated]) -> None:
    """Write all of it as JSON: each evaluation whole, differences from the first, growth."""
    apart = {
        other.name: {name: difference(found[0], other, name) for name in other.evaluation.measures}
        for other in found[1:]
    }
    grown = [as_json(growth) for growth in growths(found)]
    for growth in grown:
        for size in growth["sizes"]:
            del size["dictionary"]  # a path of this machine
    write_json(
        out,
        {
            "dictionaries": [{"name": each.name} | as_json(each.evaluation) for each in found],
            "differences": {
                name: {key: asdict(value) for key, value in each.items() if value} for name, each in apart.items()
            },
            "growth": grown,
        },
    )


_GROWTH_HEADS = ("dictionary", "latents", "L0", "FVU", "nearest in the next (chance)", "kept", "split")


def _growth_lines(growth: Growth) -> list[tuple[str, ...]]:
    steps = {step.smaller: step for step in growth.steps}
    return [
        (size.name, f"{size.n_latents:,}", _number(size.l0), _number(size.fvu), *_step(steps.get(size.name)))
        for size in growth.sizes
    ]


def _step(step: Step | None) -> tuple[str, ...]:
    if step is None:
        return ("", "", "")
    return (f"{step.cosine.forward:.3f} ({step.cosine.forward_null:.3f})", f"{step.kept:,}", f"{step.split:,}")


def _law_lines(growth: Growth) -> list[tuple[str, ...]]:
    return [
        (
            measure.name,
            _number(measure) if measure.value is not None else f"undefined: {measure.undefined}",
            measure.definition,
        )
        for measure in growth.law
    ]


def _growth_table(growth: Growth) -> RenderableType:
    table = plain_table("As latents grow")
    for head in _GROWTH_HEADS:
        table.add_column(head, justify="left" if head == "dictionary" else "right", overflow="fold")
    for line in _growth_lines(growth):
        table.add_row(visible(line[0]), *line[1:])
    law = "; ".join(f"{name}: {value}" for name, value, _ in _law_lines(growth))
    return Group(
        table,
        Text(
            "Kept, split: latents with one, with several in the next larger dictionary at a cosine above 0.7. "
            f"FVU counts what L0 keeps: compare sizes of like L0. {law}.",
            "dim",
        ),
    )


def _growth_plot(growth: Growth) -> Figure:
    points = tuple(
        (float(size.n_latents), size.fvu.value, f"{size.name}: {size.n_latents:,} latents, FVU {_number(size.fvu)}")
        for size in growth.sizes
        if size.fvu.value is not None
    )
    scale: Scale = "log" if min(y for _, y, _ in points) > 0 else "linear"
    series = [Series("FVU", points)]
    title = "Variance unexplained as latents grow"
    return plot(title, "latents", "share of variance", series, y_scale=scale, size=SMALL, has_legend=False)


def _writes(found: Sequence[Evaluated], growth: Growth) -> str:
    return next(each.evaluation.hookpoint for each in found if each.name == growth.sizes[0].name)


def _notes(found: Sequence[Evaluated]) -> list[str]:
    measured: dict[str, list[str]] = {}
    for each in found:
        measured.setdefault(_sizes(each.evaluation), []).append(each.name)
    sizes = [size if len(measured) == 1 else f"{', '.join(names)}: {size}" for size, names in measured.items()]
    stamps = {each.evaluation.checked.definitions: each.evaluation.checked for each in found}
    notes = [
        f"In brackets 95 % over resampled documents. {'. '.join(sizes)}. "
        "ce_recovered saturates: read excess_ce (nats per token) beside it."
    ]
    notes += [
        f"Measured by definitions {digest[:8]}, which give {checked.n_answers - len(checked.wrong)} of {checked.n_answers} "
        "known answers."
        for digest, checked in stamps.items()
    ]
    if len(found) > 1:
        alone = [
            f"{each.name} ({first_other(each.documents, found[0].documents)})"
            for each in found[1:]
            if each.documents != found[0].documents
        ]
        notes.append(
            f"Differences are from {found[0].name}, resampled in pairs: the same documents for both, so that what is hard in a "
            "document cancels. * where the interval leaves out zero."
        )
        if alone:
            notes.append(
                f"No differences for {', '.join(alone)}: measured on other documents, seeds or settings than {found[0].name}. "
                "Evaluate them with the same --store and settings."
            )
    return notes


def _sizes(evaluation: Evaluation) -> str:
    counted, scored = evaluation.measures["fvu"], evaluation.measures["ce_clean"]
    return (
        f"fvu, l0, dead: {counted.n:,} rows of {counted.n_documents:,} documents; ce, kl: {scored.n:,} pairs of tokens"
    )


def _shown(each: Evaluated, name: str) -> str:
    measure = each.evaluation.measures.get(name)
    return "" if measure is None else _number(measure)


def _number(measure: Measure) -> str:
    if measure.value is None:
        return "undefined"
    if measure.low is None or measure.high is None:
        return f"{measure.value:.4g}"
    return f"{measure.value:.4g} [{measure.low:.4g}, {measure.high:.4g}]"


def _apart(each: Difference | None) -> str:
    if each is None:
        return ""
    return f"{each.value:+.3g} [{each.low:+.3g}, {each.high:+.3g}]{' *' if each.is_clear else ''}"


def _frontiers(found: Sequence[Evaluated]) -> list[Figure]:
    """L0 against what is lost, for several dictionaries. Logarithmic where every number is above zero."""
    if len(found) < 2:
        return []
    plots = []
    for name, title, unit in (
        ("fvu", "Variance unexplained (FVU)", "share of variance"),
        ("ce_recovered", "CE recovered, mean ablation", "share of its damage"),
        ("excess_ce", "Excess loss in the model", "nats per token"),
    ):
        series = [Series(each.name, _point(each, name)) for each in found]
        values = [y for one in series for _, y, _ in one.points]
        if values:
            scale = "log" if name == "fvu" and min(values) > 0 else "linear"
            plots.append(
                plot(f"{title} over L0", "latents per row", unit, series, x_scale="linear",
                     y_scale="log" if scale == "log" else "linear", size=SMALL, has_legend=False)
            )  # fmt: skip
    return plots


def _point(each: Evaluated, name: str) -> tuple[tuple[float, float, str], ...]:
    measures = each.evaluation.measures
    l0, lost = measures["l0"].value, measures[name].value
    if l0 is None or lost is None:
        return ()
    # To four digits: of dictionaries that all keep k latents, an axis would show nothing but rounding.
    return ((float(f"{l0:.4g}"), lost, f"{each.name}: L0 {l0:.4g}, {name} {_number(measures[name])}"),)


def _densities(found: Sequence[Evaluated]) -> Figure:
    series = []
    for each in found:
        histogram = each.evaluation.density
        first = next((i for i, n in enumerate(histogram.counts) if n), 0)
        bins = list(zip(histogram.edges, histogram.edges[1:], histogram.counts, strict=False))[max(first - 1, 0) :]
        line = [(10.0**edge, float(n)) for low, high, n in bins for edge in (low, high)]
        series.append(Series(each.name, (), (*line, (line[-1][0], 0.0))))
    dead = ", ".join(f"{each.evaluation.density.zero:,}" for each in found)
    title = f"How often latents fire; never: {dead}"
    return plot(
        title, "share of rows", "latents", series, x_scale="log", y_scale="linear", size=SMALL, has_legend=False
    )


def _sheets(found: Sequence[Evaluated]) -> list[Sheet]:
    names = tuple(each.name for each in found)
    units = {name: m.unit for each in found for name, m in each.evaluation.measures.items()}
    every = [name for name in dict.fromkeys((*MAIN, *units)) if name in units]
    definitions = {name: m.definition for each in found for name, m in each.evaluation.measures.items()}
    sheets = [
        Sheet(
            ("measure", *names, "unit", "definition"),
            [(name, *(_shown(each, name) for each in found), units[name], definitions[name]) for name in every],
            "Every number",
        )
    ]
    for growth in growths(found):
        sheets.append(Sheet(_GROWTH_HEADS, _growth_lines(growth), f"Growth at {_writes(found, growth)}"))
        sheets.append(
            Sheet(("measure", "value", "definition"), _law_lines(growth), "What more latents would not explain")
        )
    if len(found) > 1:
        lines = [(name, *(_apart(difference(found[0], other, name)) for other in found[1:])) for name in every]
        sheets.append(
            Sheet(("measure", *names[1:]), [line for line in lines if any(line[1:])], f"Difference from {names[0]}")
        )
    tasks = list(dict.fromkeys(task.name for each in found for task in each.evaluation.tasks))
    if tasks:
        sheets.append(
            Sheet(
                ("task", *names),
                [_task(found, task) for task in tasks],
                "Right answers: clean, replaced, of how many prompts",
            )
        )
    classes = list(dict.fromkeys(each.name for one in found for each in one.evaluation.dark_matter.classes))
    if classes:
        sheets.append(
            Sheet(
                ("tokens", *names),
                [_class(found, name) for name in classes],
                "Share of the error, FVU, by class of token",
            )
        )
    return sheets


def _cautions(found: Sequence[Evaluated]) -> list[Sheet]:
    lines = [(each.name, item.name, item.sentence) for each in found for item in each.evaluation.warnings]
    return [Sheet(("dictionary", "warning", "what it says"), lines, "Warnings")] if lines else []


def _task(found: Sequence[Evaluated], name: str) -> tuple[str, ...]:
    of = [next((task for task in each.evaluation.tasks if task.name == name), None) for each in found]
    return (name, *("" if task is None else f"{task.clean:.3f}, {task.replaced:.3f} of {task.n:,}" for task in of))


def _class(found: Sequence[Evaluated], name: str) -> tuple[str, ...]:
    of = [next((one for one in each.evaluation.dark_matter.classes if one.name == name), None) for each in found]
    return (
        name,
        *("" if one is None or one.share_of_error.value is None else
          f"{one.share_of_error.value:.3f}, {'-' if one.fvu.value is None else format(one.fvu.value, '.4g')}" for one in of),
    )  # fmt: skip
