"""The suites of supervised and causal measurements as tables: a line for each number, a column for what it is held against."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mohole.evaluate.results import Evaluation, Rated, SuiteResult
from mohole.metrics import Measure
from mohole.visible import visible

COLUMNS = ("dictionary", "random", "neurons", "pca", "probe")
NOTE = (
    "Beside the dictionary: random directions, neurons and principal axes as dictionaries, and a probe that reads or edits "
    "all of the row. In brackets: 95 %, over held-out documents or prompts; of the others in evaluation.json."
)


def suite_tables(evaluation: Evaluation, table: Table) -> RenderableType:
    """All suites of one dictionary in this (empty) table, and what was left out."""
    for name in ("", *COLUMNS):
        table.add_column(name, justify="right" if name else "left", style="bold" if name == "dictionary" else "")
    for suite in evaluation.suites:
        table.add_section()
        table.add_row(Text(suite.suite.replace("_", " "), "bold"))
        for rated in suite.rated:
            table.add_row(*cells(rated))
    left_out = [Text(sentence) for suite in evaluation.suites for sentence in suite.left_out]
    return Group(table, *left_out, Text(NOTE, "dim"))


def cells(rated: Rated) -> list[str]:
    """A number's name, and its value for each column; "-" where it is undefined, nothing where it was not asked for."""
    return [
        visible(rated.name),
        *(_cell(rated.measures.get(name), with_interval=name == COLUMNS[0]) for name in COLUMNS),
    ]


def suite_rows(suite: SuiteResult) -> dict[str, object]:
    """A suite as the page shows it."""
    return {
        "suite": suite.suite.replace("_", " "),
        "rows": [cells(rated) for rated in suite.rated],
        "left_out": list(suite.left_out),
    }


def _cell(measure: Measure | None, *, with_interval: bool) -> str:
    if measure is None:
        return ""
    if measure.value is None:
        return "-"
    value = f"{measure.value:.3g}"
    is_sure = measure.low is None or measure.high is None or measure.low == measure.high
    return value if is_sure or not with_interval else f"{value} [{measure.low:.2f}, {measure.high:.2f}]"
