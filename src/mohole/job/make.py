"""Making what is missing: in order, each artifact whole or not at all, the hookpoints side by side in worker processes."""

import os
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

from mohole import artifact
from mohole.config import Recipe
from mohole.errors import StageError
from mohole.execute import Cores, Kind, Task, open_executor, share_cores
from mohole.job.layout import plan
from mohole.job.needs import check_given, check_model, check_parents, check_rows
from mohole.job.plan import Plan
from mohole.job.stage import VERBS, Stage, Verb
from mohole.record import Recorder
from mohole.storage import open_storage

LOG_FILE = "job.jsonl"
"""One line for each stage that was made: its name, CPU-seconds and wall seconds. Beside the artifacts, part of none."""

_PROBE = ".mohole-probe"

Say = Callable[[str], None]


def print_line(line: str) -> None:
    """Tell a person a line on standard error."""
    os.write(2, f"{line}\n".encode())  # one write call: lines of several workers do not mix


def run(recipe: Recipe, *, replace: bool = False, say: Say = print_line) -> list[str]:
    """Make every artifact of `recipe` that is missing. Returns the names of the stages that were made.

    Args:
        replace: make artifacts again that are there, finished or not, but were made from other settings or other parents.
        say: told one line for each stage, for a person to read.

    Raises:
        StageError: an artifact stands there that was made from something else, and `replace` is false.
        ArtifactError: the same of one that is not finished and worth going on with.
    """
    whole = plan(recipe)
    return _make(whole, whole.stages, replace, say)


def run_verb(recipe: Recipe, verb: Verb, *, replace: bool = False, say: Say = print_line) -> list[str]:
    """Make the artifacts of one stage, for every hookpoint. `harvest` makes the corpus too.

    Raises:
        ArtifactError: what the stage is made from is not there.
        StageError: as `run`.
    """
    whole = plan(recipe)
    verbs: tuple[Verb, ...] = ("corpus", "harvest") if verb == "harvest" else (verb,)
    chosen = [stage for stage in whole.stages if stage.verb in verbs]
    if not chosen and verb != "shuffle":
        raise StageError(
            f"{verb}: not for a {recipe.train.learns.kind} yet; its dictionary is what `mohole train` leaves"
        )
    return _make(whole, chosen, replace, say)


def run_until(recipe: Recipe, verb: Verb, *, replace: bool = False, say: Say = print_line) -> list[str]:
    """Make what a stage is made from, where it is missing, and its artifacts.

    Raises:
        StageError: as `run`.
    """
    whole = plan(recipe)
    last = VERBS.index(verb)
    return _make(whole, [stage for stage in whole.stages if VERBS.index(stage.verb) <= last], replace, say)


def _make(whole: Plan, stages: Sequence[Stage], replace: bool, say: Say) -> list[str]:
    """What all hookpoints share is made here, in order; the chains of the hookpoints are made side by side."""
    check_given(whole, stages)  # before a folder is made for what cannot be
    for stage in stages:
        artifact.mend(stage.out)
    if not replace:
        for stage in stages:  # at once, not after an hour of work on an earlier one
            if whole.parents_are_made(stage):
                _refuse_to_overwrite(whole, stage)
    made_here = {stage.out for stage in stages}
    for stage in stages:  # nor once a dictionary has been written that is said to be of the wrong model
        corpus = stage.parents.get("corpus")
        if corpus is not None and corpus not in made_here and (corpus / artifact.MANIFEST).is_file():
            check_model(whole, stage)
    _check_place(whole, stages)
    made: list[str] = []
    for _, group in groupby(stages, key=lambda stage: stage.hookpoint is None):
        chains = [list(chain) for _, chain in groupby(group, key=lambda stage: stage.hookpoint)]
        missing = [chain for chain in chains if not all(whole.is_finished(stage) for stage in chain)]
        if missing:
            made += _make_side_by_side(whole, missing, replace, say)
    return made


def _check_place(whole: Plan, stages: Sequence[Stage]) -> None:
    """A place that cannot be reached or written is an error now, not after the corpus has been tokenized."""
    place = whole.recipe.harvest.place
    if place is not None and any(stage.verb == "harvest" and not whole.is_finished(stage) for stage in stages):
        storage = open_storage(place)
        storage.put(_PROBE, b"")
        storage.delete([_PROBE])


def _make_side_by_side(whole: Plan, chains: list[list[Stage]], replace: bool, say: Say) -> list[str]:
    machine = whole.recipe.machine
    spread = machine.executor in ("process", "ray") and all(
        stage.verb == "catalogue" for chain in chains for stage in chain
    )
    # what is told to spread its own tasks over workers comes one after the other
    n_at_once = 1 if spread else len(chains)
    cores = share_cores(n_at_once, processes=machine.processes, threads=machine.threads)
    kind: Kind = "inline" if cores.processes == 1 else "process"
    before = {stage.name: _manifest_identity(stage) for chain in chains for stage in chain}
    tell = say if kind == "inline" else print_line  # the caller's own cannot be called from another process
    tasks = [
        # alone: an artifact is locked while it is made
        Task(chain[0].hookpoint or "job", _make_in_order, (whole, chain, cores, replace, tell), alone=True)
        for chain in chains
    ]
    with open_executor(kind, cores) as executor:
        executor.run(tasks)
    return [stage.name for chain in chains for stage in chain if _manifest_identity(stage) != before[stage.name]]


def _manifest_identity(stage: Stage) -> int | None:
    """Which file its manifest is: another one once the artifact has been made again, were it with the same bytes."""
    manifest = stage.out / artifact.MANIFEST
    return manifest.stat().st_ino if manifest.is_file() else None


def _make_in_order(whole: Plan, stages: Sequence[Stage], cores: Cores, replace: bool, say: Say) -> None:
    """Make the stages of one chain that are missing."""
    # torch is imported here and not before: a job with nothing to do answers at once
    import torch

    from mohole.job.workshop import Workshop

    torch.set_num_threads(cores.threads)
    workshop = Workshop(whole.recipe, cores)
    for stage in stages:
        if whole.is_finished(stage):  # made before, or its parents were missing and have been made again, byte for byte
            continue
        if not replace:
            _refuse_to_overwrite(whole, stage)
        check_parents(whole, stage)
        check_model(whole, stage)
        with logged(whole.recipe, stage.name, say) as notes:
            inputs = whole.inputs(stage)
            check_rows(whole.recipe, stage)
            with artifact.create(
                stage.out, inputs, replace=replace, resume=stage.resumes, worth=stage.worth, bulk=stage.bulk
            ) as draft:
                notes.append(workshop.make(stage, draft, inputs))


@contextmanager
def logged(recipe: Recipe, name: str, say: Say) -> Iterator[list[str]]:
    """What is made in the block gets its line in the run's log and is told of, with the notes that the block leaves."""
    notes: list[str] = []
    start, cpu_start = time.monotonic(), _cpu_seconds()
    yield notes
    wall, cpu = time.monotonic() - start, _cpu_seconds() - cpu_start
    with Recorder(Path(recipe.run) / LOG_FILE) as log:
        log.write(stage=name, cpu_seconds=round(cpu, 2), wall_seconds=round(wall, 2))
    say("; ".join([f"{name}: done in {wall:.1f} s", *filter(None, notes)]))


def _refuse_to_overwrite(whole: Plan, stage: Stage) -> None:
    """An artifact made from something else may have cost a week: only the user takes it away."""
    if (stage.out / artifact.MANIFEST).is_file() and not whole.is_finished(stage):
        raise StageError(
            f"{stage.out}: made with other settings ({artifact.difference(stage.out, whole.inputs(stage))}); "
            "--replace makes it again, -o run=FOLDER keeps both"
        )


def _cpu_seconds() -> float:
    """Of this process and of the workers that it has had."""
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in both)
