"""Scaling laws for people: fits to the tables of sweeps, what a target takes, in a terminal and as a page of plots."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Group, RenderableType
from rich.text import Text

from mohole.drawing import Figure, Series, Sheet, plot, write_page
from mohole.errors import StageError
from mohole.report.place import check_place
from mohole.report.terminal import plain_table
from mohole.train.compute import Budget, ComputeFrontier
from mohole.train.laws import ROWS, SPARSITY, WIDTH
from mohole.train.scaling import FAR, Estimate, Law, Need, Point, best_points, fit_all, frontier, need, points_of
from mohole.train.table import TABLE_FILE, SweepTable
from mohole.visible import visible

PAGES = (".html", ".htm")
_LINE_POINTS = 40
_HEADS = ("law", "of", "constants, with 90 % intervals", "points", "residual")
_BUDGET_HEADS = ("flops", "of", "latents", "rows", "fvu")
_NEED_HEADS = ("target", "law", "of", "latents", "rows", "flops")


@dataclass(frozen=True)
class Study:
    """The laws of one place."""

    place: str
    points: tuple[Point, ...]
    laws: tuple[Law, ...]
    needs: tuple[Need, ...]
    frontiers: tuple[ComputeFrontier, ...]
    """One for each rows law."""
    budgets: tuple[tuple[ComputeFrontier, Budget], ...]
    notes: tuple[str, ...]
    """What could not be told, and why."""


def read_study(
    sweeps: Sequence[Path], targets: Sequence[float], k: int | None, budgets: Sequence[float] = ()
) -> list[Study]:
    """Fit what the tables of these sweeps can tell, place by place.

    Args:
        targets: FVUs to reach.
        budgets: FLOPs to spend.

    Raises:
        StageError: no law can be fitted at any place; says what is needed.
        ArtifactError: a damaged table.
    """
    groups: dict[tuple[str, str, int], list[Point]] = {}
    for path in sweeps:
        table = SweepTable.read(path / TABLE_FILE)
        groups.setdefault((table.place, table.learns, table.d_in), []).extend(points_of(table))
    studies: list[Study] = []
    refused: list[str] = []
    for (place, learns, d_in), points in groups.items():
        try:
            studies.append(_study(f"{learns} at {place}", points, d_in, targets, k, budgets))
        except StageError as error:
            refused.append(str(error))
    if not studies:
        raise StageError("; ".join(refused))
    return studies


def scaling_text(studies: Sequence[Study]) -> RenderableType:
    """Laws, needs and what could not be told."""
    parts: list[RenderableType] = []
    for study in studies:
        laws = plain_table(visible(study.place))
        for head in _HEADS:
            laws.add_column(head, justify="right" if head in ("points", "residual") else "left")
        for law in study.laws:
            name, where, constants, *numbers = _law_line(law)
            laws.add_row(name, where, constants.replace("; ", "\n"), *numbers)
        parts.append(laws)
        forms = dict.fromkeys(law.form for law in study.laws)
        parts += [Text(f"{form.name}: fvu = {form.formula}", "dim") for form in forms]
        parts.append(Text("n latents, k active latents, D rows trained on", "dim"))
        if study.needs:
            needs = plain_table("What a target takes")
            for head in _NEED_HEADS:
                needs.add_column(head)
            for each in study.needs:
                needs.add_row(*_need_line(each))
            parts.append(needs)
        if study.budgets:
            best = plain_table("The best that FLOPs can do")
            for head in _BUDGET_HEADS:
                best.add_column(head)
            for frontier_of, budget in study.budgets:
                best.add_row(*_budget_line(frontier_of, budget))
            parts.append(best)
        parts += [Text(visible(_frontier_line(each))) for each in study.frontiers]
        parts += [Text(visible(note), "dim") for note in study.notes]
    return Group(*parts)


def write_scaling(out: Path, studies: Sequence[Study]) -> None:
    """Write the plots of all places as one page.

    Raises:
        ConfigError: it is in an artifact, or not called .html.
    """
    check_place(out, "--page", PAGES)
    plots = [drawing for study in studies for drawing in _plots(study)]
    formulas = [f"{form.name}: L = {form.formula}" for form in (WIDTH, ROWS, SPARSITY)]
    notes = [
        "L is fvu, n latents, k active latents, D rows trained on. " + ". ".join(formulas) + ".",
        "Dashed: the fit. Intervals are of 90 %. Of members that differ in learning rate alone the best one counts.",
        *(_frontier_line(each) for study in studies for each in study.frontiers),
        *(note for study in studies for note in study.notes),
    ]
    lines = [[study.place, *_law_line(law)] for study in studies for law in study.laws]
    write_page(out, "Scaling of dictionaries", notes, plots, [Sheet(("place", *_HEADS), lines)])


def _study(
    place: str, points: Sequence[Point], d_in: int, targets: Sequence[float], k: int | None, budgets: Sequence[float]
) -> Study:
    laws, notes = fit_all(place, points)
    needs = []
    for target in targets:
        for law in laws:
            try:
                needs.append(need(law, target, d_in, k))
            except StageError as error:
                notes.append(str(error))
    frontiers = tuple(ComputeFrontier(law, d_in) for law in laws if law.form is ROWS)
    if budgets and not frontiers:
        notes.append(
            f"{place}: no rows law, and so no answer to what FLOPs can do; sweep 3 widths at 3 numbers of steps"
        )
    spent = tuple((each, each.at(flops)) for flops in budgets for each in frontiers)
    return Study(place, tuple(best_points(points)), tuple(laws), tuple(needs), frontiers, spent, tuple(notes))


def _law_line(law: Law) -> list[str]:
    constants = "; ".join(f"{name} {_with_interval(found)}" for name, found in law.constants().items())
    return [law.form.name, visible(law.where), constants, str(len(law.points)), f"{law.sigma:.2%}"]


def _need_line(each: Need) -> list[str]:
    where = each.law.where + (f", k {each.k}" if each.law.form is SPARSITY else "")
    far = f" (beyond {FAR:g}x of the data)" if each.is_far else ""
    others = ["" if found is None else _with_interval(found) for found in (each.rows, each.flops)]
    return [f"{each.target:g}", each.law.form.name, visible(where), _with_interval(each.n_latents) + far, *others]


def _budget_line(of: ComputeFrontier, each: Budget) -> list[str]:
    far = f" (beyond {FAR:g}x of the data)" if each.is_far else ""
    found = [_with_interval(each.n_latents) + far, _with_interval(each.rows), _with_interval(each.fvu)]
    return [f"{each.flops:.3g}", visible(of.law.where), *found]


def _frontier_line(each: ComputeFrontier) -> str:
    return (
        f"compute ({each.law.where}), C the FLOPs of the encoder's products: what is above the floor falls as "
        f"C^-{_with_interval(each.gamma())}, latents grow as C^{_with_interval(each.latents_exponent())}, rows as the rest"
    )


def _with_interval(found: Estimate) -> str:
    return f"{_number(found.value)} ({_number(found.low)} to {_number(found.high)})"


def _number(value: float) -> str:
    if math.isinf(value):
        return "any"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e7 else f"{value:.3g}"


def _plots(study: Study) -> list[Figure]:
    plots = []
    for law in study.laws:
        if law.form is WIDTH:
            plots.append(plot(f"{study.place}: {law.where}", "latents", "FVU", [_drawn(law, law.points, "fit", None)]))
        elif law.form is ROWS:
            plots.append(plot(f"{study.place}: {law.where}", "latents", "FVU", _by(law, "rows")))
        else:
            plots.append(plot(f"{study.place}: {law.where}", "latents", "FVU", _by(law, "k")))
    edge = frontier(study.points)
    dots = tuple((point.flops, point.fvu, _said(point)) for point in study.points)
    line = tuple((point.flops, point.fvu) for point in edge) if len(edge) > 1 else ()
    series = [Series("frontier", dots, line), *(_bought(each) for each in study.frontiers)]
    plots.append(plot(f"{study.place}: what compute buys", "FLOPs of a training", "FVU", series))
    return plots


def _bought(frontier: ComputeFrontier) -> Series:
    flops = [point.flops for point in frontier.law.points]
    places = np.geomspace(min(flops), max(flops) * FAR, _LINE_POINTS)
    line = tuple(zip(places.tolist(), frontier.curve(places).tolist(), strict=True))
    return Series(f"by the rows law ({frontier.law.where})", (), line, is_law=True)


def _by(law: Law, name: str) -> list[Series]:
    """A fitted line for each number of rows, or of active latents."""
    values = sorted({getattr(point, name) for point in law.points})
    return [
        _drawn(law, [point for point in law.points if getattr(point, name) == value], f"{name} {value:,}", value)
        for value in values
    ]


def _drawn(law: Law, points: Sequence[Point], label: str, other: float | None) -> Series:
    widths = sorted(float(point.n_latents) for point in points)
    places = np.geomspace(widths[0], widths[-1] * 2, _LINE_POINTS)
    inputs = places[:, None] if other is None else np.stack([places, np.full_like(places, other)], axis=1)
    line = tuple(zip(places.tolist(), law.curve(inputs).tolist(), strict=True))
    return Series(label, tuple((float(p.n_latents), p.fvu, _said(p)) for p in points), line, is_law=True)


def _said(point: Point) -> str:
    return f"{point.n_latents:,} latents, {point.setting}, {point.rows:,} rows: fvu {point.fvu:.4g}"
