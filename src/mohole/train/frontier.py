"""The page of a sweep: what sparsity costs at each width, and what width buys at each sparsity."""

from collections.abc import Callable, Iterable
from pathlib import Path

from mohole.drawing import Series, Sheet, plot, write_page
from mohole.train.table import Entry, SweepTable, table_lines


def write_frontier(out: Path, table: SweepTable) -> None:
    """Write the page of a table: FVU over L0 for each width, FVU over n_latents for each sparsity, and all members."""
    drawn = [entry for entry in table.members if entry.fvu and entry.l0]
    by_width = _series(
        drawn, lambda entry: f"{entry.n_latents:,} latents, {entry.nonlinearity}", lambda entry: entry.l0 or 0.0
    )
    by_setting = _series(drawn, lambda entry: entry.setting, lambda entry: float(entry.n_latents))
    plots = []
    if drawn:
        plots = [
            plot("What sparsity costs", "L0, active latents per row", "FVU", by_width),
            plot("What width buys", "latents", "FVU", by_setting),
        ]
    notes = [
        f"{table.learns} at {table.place}, {len(table.members)} members, {table.pass_rows:,} rows in a pass.",
        f"fvu, l0 and silent latents: on {table.measured_on}. A line joins the best of each width or sparsity.",
        f"flops: {table.flops_are}.",
    ]
    heads, lines = table_lines(table.members)
    write_page(out, f"Sweep at {table.place}", notes, plots, [Sheet(heads, lines)])


def _series(entries: Iterable[Entry], label: Callable[[Entry], str], x: Callable[[Entry], float]) -> list[Series]:
    groups: dict[str, list[Entry]] = {}
    for entry in sorted(entries, key=lambda entry: (entry.n_latents, entry.k or 0, entry.sparsity_weight or 0.0)):
        groups.setdefault(label(entry), []).append(entry)
    return [Series(name, tuple(_points(members, x)), _best(members, x)) for name, members in groups.items()]


def _points(entries: Iterable[Entry], x: Callable[[Entry], float]) -> Iterable[tuple[float, float, str]]:
    for entry in entries:
        yield x(entry), entry.fvu or 0.0, f"{entry.name}: fvu {entry.fvu:.4g}, l0 {entry.l0:.1f}"


def _best(entries: Iterable[Entry], x: Callable[[Entry], float]) -> tuple[tuple[float, float], ...]:
    """The best entry of each (width, sparsity), joined in the order of x."""
    best: dict[tuple[int, str], Entry] = {}
    for entry in entries:
        key = entry.n_latents, entry.setting
        if key not in best or (entry.fvu or 0.0) < (best[key].fvu or 0.0):
            best[key] = entry
    line = sorted((x(entry), entry.fvu or 0.0) for entry in best.values())
    return tuple(line) if len(line) > 1 else ()
