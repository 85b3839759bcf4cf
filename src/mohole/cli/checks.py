"""The verb `check-metrics`: are the definitions right, and would the checks see it if they were not?"""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from mohole.metrics.known_answers import Asked
    from mohole.metrics.known_answers.seen import Caught


def check_metrics(
    every: Annotated[bool, typer.Option("--every", help="List every number asked for, and every mutant.")] = False,
) -> None:
    """Ask every metric for numbers that are known in advance, and catch the bugs that other libraries shipped.

    Exits with 1 when a number is wrong or a mutant is caught by no check.
    """
    import torch

    from mohole.metrics.known_answers import CHECKS
    from mohole.metrics.known_answers.seen import asked, caught
    from mohole.metrics.mutants import MUTANTS

    torch.set_num_threads(1)  # thousands of tiny products: threads that wait for each other cost three times as much
    began = time.process_time()
    answers = tuple(asked(CHECKS))
    bugs = tuple(caught(MUTANTS, CHECKS))
    wrong = [f"{each.name}: {sentence}" for each in answers for sentence in each.wrong]
    survivors = [f"{each.mutant.name}: {each.mutant.bug}" for each in bugs if not each.check]
    if every:
        _print_every(answers, bugs)
    n_right = sum(answer.is_right for each in answers for answer in each.answers)
    typer.echo(
        f"{n_right} known answers right, {len(wrong)} wrong; {len(bugs) - len(survivors)} wrong definitions caught, "
        f"{len(survivors)} not; {time.process_time() - began:.1f} CPU-seconds"
    )
    for sentence in wrong:
        typer.echo(f"wrong: {sentence}", err=True)
    for sentence in survivors:
        typer.echo(f"not caught: {sentence}", err=True)
    if wrong or survivors:
        raise typer.Exit(1)


def _print_every(answers: "Sequence[Asked]", bugs: "Sequence[Caught]") -> None:
    """What must be true, and each bug with the check that sees it, as two tables."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    look: dict[str, Any] = {"title_justify": "left", "box": SIMPLE_HEAD, "border_style": "dim"}
    known = Table("what must be true", "numbers", title=Text("Known answers", "bold"), **look)
    for each in answers:
        known.add_row(Text(each.claim), Text("wrong", "bold red") if each.wrong else Text(str(len(each.answers))))
    mutants = Table("a bug", "seen in", "caught by", title=Text("Mutants", "bold"), **look)
    for bug in bugs:
        by = Text(bug.check.replace("_", " ")) if bug.check else Text("none", "bold red")
        mutants.add_row(Text(bug.mutant.bug), Text(bug.mutant.seen_in, "dim"), by)
    Console().print(known, mutants)
