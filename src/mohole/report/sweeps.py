"""Sweeps as tables for a terminal."""

from rich.console import Group, RenderableType
from rich.text import Text

from mohole.report.terminal import plain_table
from mohole.train.table import SweepTable, table_lines
from mohole.visible import visible

_HEADS = ("member", "latents", "k or weight", "lr", "fvu", "l0", "dead", "flops")
"""What fits 80 columns; the page has the rest."""


def sweep_text(table: SweepTable) -> RenderableType:
    """Every member, the lowest fvu first, and which rows the numbers are of."""
    heads, lines = table_lines(table.members)
    n_rows = table.members[0].rows
    shown = plain_table(f"{table.learns} at {visible(table.place)}: {len(table.members)} members, {n_rows:,} rows each")
    for head in _HEADS:
        shown.add_column(head, justify="left" if head == "member" else "right", no_wrap=True)
    for line in lines:
        shown.add_row(*(visible(cell) for head, cell in zip(heads, line, strict=True) if head in _HEADS))
    failures = [
        Text(visible(f"{entry.name}: {entry.failure}"), "red") for entry in table.members if entry.failure is not None
    ]
    return Group(shown, *failures, Text(f"fvu, l0: on {table.measured_on}", "dim"))
