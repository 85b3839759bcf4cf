"""The suites of supervised and causal measurements as tables: a line for each number, a column for what it is held against."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mohole.evaluate.results import Evaluation, Rated, SuiteResult
from mohole.metrics import Measure
from mohole.visible import visible

COLUMNS = ("dictionary", "random", "neurons", "pca", "probe")
HEADINGS = (*COLUMNS, "n")
NOTE = (
    "Beside the dictionary: random directions, neurons and principal axes as dictionaries, and a probe that reads or edits "
    "all of the row. In brackets: 95 %, over held-out documents or prompts; of the others in evaluation.json. n: what the "
    "dictionary's number was counted over."
)


def suite_tables(evaluation: Evaluation, table: Table) -> RenderableType:
    """All suites of one dictionary in this (empty) table, and what was left out."""
    for name in ("", *HEADINGS):
        table.add_column(
            name,
            no_wrap=name == COLUMNS[0],
            justify="right" if name else "left",
            style="bold" if name == "dictionary" else "",
        )
    for suite in evaluation.suites:
        table.add_section()
        table.add_row(Text(_heading(suite), "bold"))
        for rated in suite.rated:
            table.add_row(*cells(rated))
    left_out = [Text(sentence) for suite in evaluation.suites for sentence in suite.left_out]
    return Group(table, *left_out, Text(NOTE, "dim"))


def cells(rated: Rated) -> list[str]:
    """A number's name, its value for each column ("-" where it is undefined, nothing where it was not asked for), and its n."""
    of_dictionary = rated.measures.get(COLUMNS[0])
    return [
        visible(rated.name),
        *(_cell(rated.measures.get(name), with_interval=name == COLUMNS[0]) for name in COLUMNS),
        "" if of_dictionary is None else f"{of_dictionary.n:,}",
    ]


def suite_rows(suite: SuiteResult) -> dict[str, object]:
    """A suite as the page shows it."""
    return {
        "suite": _heading(suite),
        "rows": [cells(rated) for rated in suite.rated],
        "left_out": list(suite.left_out),
    }


def _heading(suite: SuiteResult) -> str:
    """Its name, and what its n counts."""
    counted = dict.fromkeys(rated.measures[COLUMNS[0]].n_of for rated in suite.rated if COLUMNS[0] in rated.measures)
    return suite.suite.replace("_", " ") + (f" (n: {' or '.join(counted)})" if counted else "")


def _cell(measure: Measure | None, *, with_interval: bool) -> str:
    if measure is None:
        return ""
    if measure.value is None:
        return "-"
    value = f"{measure.value:.3g}"
    is_sure = measure.low is None or measure.high is None or measure.low == measure.high
    return value if is_sure or not with_interval else f"{value} [{measure.low:.2f}, {measure.high:.2f}]"
