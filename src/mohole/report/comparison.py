"""Evaluations side by side: every number with its interval, differences resampled in pairs, one page. Measures nothing itself."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Group, RenderableType
from rich.text import Text

from mohole import artifact
from mohole.drawing import SMALL, Figure, Scale, Series, Sheet, plot, write_page
from mohole.errors import ArtifactError, ConfigError, StageError
from mohole.evaluate.files import read_evaluation, read_replicates
from mohole.evaluate.guards.finite import NOT_FINITE
from mohole.evaluate.results import Evaluation
from mohole.metrics import Measure, interval
from mohole.metrics.measure import as_json
from mohole.record import write_json
from mohole.report.growth import Growth, Size, Step, growth_of
from mohole.report.place import check_place
from mohole.report.terminal import plain_table
from mohole.visible import visible

Float64 = NDArray[np.float64]

MAIN = ("fvu", "l0", "cosine_centred", "relative_bias", "ce_recovered", "excess_ce", "kl", "dead", "dense")
"""What the terminal shows; the page has every number."""
_SAME = ("corpus", "rows")


@dataclass(frozen=True)
class Evaluated:
    """A finished evaluation."""

    name: str
    """The shortest end of its path that tells it from the others."""
    evaluation: Evaluation
    replicates: dict[str, Float64]
    dictionary: Path | None
    """Its artifact, where it lies beside and is what was evaluated."""
    documents: dict[str, object]
    """What says which documents it is of, and how they were resampled: two with the same can be compared in pairs."""


@dataclass(frozen=True)
class Difference:
    """Of a number from that of the first dictionary. `low` and `high` bound the central 95 %, over resampled documents."""

    value: float
    low: float
    high: float

    @property
    def is_clear(self) -> bool:
        """Does the interval leave out zero?"""
        return self.low > 0 or self.high < 0


def find_evaluations(paths: Sequence[Path]) -> list[Evaluated]:
    """The evaluations at these paths: their own folders, dictionaries or hookpoints beside which they lie, or whole runs.

    Raises:
        ArtifactError: a path without one, or a damaged one. ConfigError: one that is named twice.
    """
    places = [place for path in paths for place in _places(path)]
    twice = {place for place in places if places.count(place) > 1}
    if twice:
        raise ConfigError(f"{min(twice)}: named twice; name each evaluation once")
    return [_open(place, name) for place, name in zip(places, _names(places), strict=True)]


def difference(first: Evaluated, other: Evaluated, name: str) -> Difference | None:
    """other - first of one number, from resamplings that both share. None: not of the same documents, or not defined for both."""
    ours, theirs = (each.evaluation.measures.get(name) for each in (first, other))
    if ours is None or theirs is None or ours.value is None or theirs.value is None:
        return None
    if first.documents != other.documents or not all(name in each.replicates for each in (first, other)):
        return None
    if (ours.n, ours.n_documents) != (theirs.n, theirs.n_documents):
        return None
    low, high = interval(other.replicates[name] - first.replicates[name])
    return None if low is None or high is None else Difference(theirs.value - ours.value, low, high)


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
    grown = [_growth_table(growth) for growth in _growths(found)]
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
    plots = [*_frontiers(found), *map(_growth_plot, _growths(found)), _densities(found)]
    write_page(out, title, _notes(found), plots, _sheets(found), legend=legend, before=_cautions(found))


def write_json_of(out: Path, found: Sequence[Evaluated]) -> None:
    """Write all of it as JSON: each evaluation whole, differences from the first, growth."""
    apart = {
        other.name: {name: difference(found[0], other, name) for name in other.evaluation.measures}
        for other in found[1:]
    }
    growths = [as_json(growth) for growth in _growths(found)]
    for growth in growths:
        for size in growth["sizes"]:
            del size["dictionary"]  # a path of this machine
    write_json(
        out,
        {
            "dictionaries": [{"name": each.name} | as_json(each.evaluation) for each in found],
            "differences": {
                name: {key: asdict(value) for key, value in each.items() if value} for name, each in apart.items()
            },
            "growth": growths,
        },
    )


_GROWTH_HEADS = ("dictionary", "latents", "L0", "FVU", "nearest in the next (chance)", "kept", "split")


def _growths(found: Sequence[Evaluated]) -> list[Growth]:
    """Families: dictionaries of one kind, of the same places and documents, of which two differ in their number of latents."""
    families: dict[str, list[Evaluated]] = {}
    for each in found:
        evaluation = each.evaluation
        key = repr((evaluation.kind, evaluation.reads, evaluation.writes, sorted(each.documents.items())))
        families.setdefault(key, []).append(each)
    grown = [growth_of([_size(each) for each in family]) for family in families.values()]
    return [growth for growth in grown if growth]


def _size(each: Evaluated) -> Size:
    measures = each.evaluation.measures
    fvu = replace(measures["fvu"], replicates=each.replicates.get("fvu"))
    return Size(each.name, each.evaluation.n_latents, measures["l0"], fvu, each.dictionary)


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


def _places(path: Path) -> list[Path]:
    beside = [path.parent / "evaluation"] if path.name == "dictionary" else []
    for place in (path, path / "evaluation", *beside):
        if (place / artifact.MANIFEST).is_file() and artifact.read_manifest(place).kind == "evaluation":
            return [place]
    found = sorted(manifest.parent for manifest in path.glob(f"*/evaluation/{artifact.MANIFEST}"))
    if not found:
        raise ArtifactError(
            f"{path}: no evaluation there; `mohole evaluate {path} --store RUN` makes one, and says where it lies"
        )
    return found


def _names(places: Sequence[Path]) -> list[str]:
    """Paths without the parts that all of them share."""
    whole = [place.resolve().parts for place in places]
    shared = {part for part in whole[0] if all(part in parts for parts in whole)} if len(whole) > 1 else set()
    names = ["/".join(part for part in parts if part not in shared) for parts in whole]
    if len(names) == 1:
        return ["/".join(part for part in whole[0][-3:] if part != "evaluation")]
    return [name.removesuffix("/evaluation") or place.as_posix() for name, place in zip(names, places, strict=True)]


def _open(place: Path, name: str) -> Evaluated:
    manifest = artifact.open_artifact(place, kind="evaluation")
    inputs = manifest.inputs
    rows = {name: inputs.parents.get(name) for name in _SAME}
    documents = {"seed": inputs.seed} | rows | artifact.flatten(dict(inputs.config))
    evaluation = read_evaluation(place)
    if NOT_FINITE in evaluation.measures:
        raise StageError(f"{name}: nothing to compare: {evaluation.warnings[0].sentence}")
    return Evaluated(name, evaluation, read_replicates(place), _dictionary_of(place, inputs.parents), documents)


def _dictionary_of(place: Path, parents: Mapping[str, str]) -> Path | None:
    beside = place.parent / "dictionary"
    is_it = (beside / artifact.MANIFEST).is_file() and artifact.read_manifest(beside).digest == parents.get(
        "dictionary"
    )
    return beside if is_it else None


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
            f"{each.name} ({_first_other(each.documents, found[0].documents)})"
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


def _first_other(ours: Mapping[str, object], first: Mapping[str, object]) -> str:
    """Why two cannot be compared in pairs: the first thing in which they differ. A digest says nothing to a person."""
    name = next(key for key in (*ours, *first) if ours.get(key) != first.get(key))
    return f"other {name}" if name in _SAME else f"{name} is {ours.get(name)!r}, not {first.get(name)!r}"


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
    for growth in _growths(found):
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
