"""The evaluate stage: measure a dictionary on held-out documents and write what was found. files.py says what is in the files."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from mohole.config import Evaluate
from mohole.corpus import Corpus, Task
from mohole.dictionary import AnyDictionary, NormalisedAutoencoder, SparseAutoencoder
from mohole.errors import NumericsError, StageError
from mohole.evaluate.files import write_evaluation, write_recovery
from mohole.evaluate.guards.copies import copies
from mohole.evaluate.guards.finite import without_numbers
from mohole.evaluate.guards.numbers import numbers_out_of_range, unexplained
from mohole.evaluate.guards.provenance import require_rows_of
from mohole.evaluate.guards.trials import probe
from mohole.evaluate.in_model.splice import measure_splice
from mohole.evaluate.in_model.tasks import measure_tasks
from mohole.evaluate.recovery.measure import measure_recovery
from mohole.evaluate.recovery.results import Recovery
from mohole.evaluate.recovery.truth import read_truth
from mohole.evaluate.results import Caution, DarkMatter, Evaluation, SuiteResult, TaskResult
from mohole.evaluate.rows.choice import Rows, choose_rows
from mohole.evaluate.rows.dark_matter import measure_dark_matter
from mohole.evaluate.rows.measure import measure_rows
from mohole.evaluate.rows.weights import measure_weights
from mohole.evaluate.standin import StandIn, for_numpy, stand_in
from mohole.metrics import Measure
from mohole.metrics.stamp import stamp
from mohole.model import LanguageModel
from mohole.store import Store


def evaluate(
    out: Path,
    model: LanguageModel,
    dictionary: AnyDictionary,
    corpus: Corpus,
    store: Store,
    settings: Evaluate,
    *,
    seed: int,
    tasks: Sequence[Task] = (),
) -> None:
    """Write the evaluation's files into `out`. Every number comes from held-out documents.

    Args:
        store: rows of every hookpoint that the dictionary reads or writes, over `corpus`, in any order.
        tasks: what the model must still be able to do. None: no task accuracies.

    Raises:
        StageError: no held-out rows, rows of another model, or a task that cannot be run.

    A NaN or an infinity leaves a report with nothing but its warning: the share of rows that are not finite, and the first place.
    """
    spliced = stand_in(dictionary, model)
    if settings.suites and not isinstance(dictionary, SparseAutoencoder | NormalisedAutoencoder):
        raise StageError(
            f"evaluate.suites: for sparse autoencoders, which read and write one place; {spliced.name} is a {spliced.kind}: "
            "leave them out"
        )
    rows = choose_rows(corpus, store, held_out=True, max_rows=settings.max_rows, seed=seed)
    require_rows_of(model, corpus, store, rows, spliced)

    recovery: Recovery | None = None
    try:
        evaluation, sparse = _measured(model, dictionary, spliced, corpus, store, rows, settings, tasks, seed)
        if settings.recovery and corpus.labels and sparse:
            recovery = measure_recovery(store, rows, sparse, corpus, settings, seed=seed, model=model)
    except NumericsError as error:
        evaluation = without_numbers(store, rows, spliced, error)
    write_evaluation(out, evaluation)
    if recovery:
        write_recovery(out, recovery)


def _measured(
    model: LanguageModel,
    dictionary: AnyDictionary,
    spliced: StandIn,
    corpus: Corpus,
    store: Store,
    rows: Rows,
    settings: Evaluate,
    tasks: Sequence[Task],
    seed: int,
) -> tuple[Evaluation, SparseAutoencoder | NormalisedAutoencoder | None]:
    """Everything but what is found against truth; and the autoencoder as numpy takes it, where it is one.

    Raises:
        NumericsError: a NaN or an infinity.
    """
    quality = measure_rows(store, rows, spliced, seed=seed)
    in_model = measure_splice(model, [spliced], corpus, settings, seed=seed)
    unseen, dark_matter = measure_dark_matter(
        store, corpus, rows, spliced, quality.firing, settings.dark_matter_rows, seed=seed
    )
    plain = for_numpy(dictionary)
    autoencoder = plain if isinstance(plain, SparseAutoencoder | NormalisedAutoencoder) else None
    weights = measure_weights(autoencoder, quality.mean) if autoencoder else ()
    measures = {measure.name: measure for measure in (*quality.measures, *weights, *in_model, *unseen)}
    skills = measure_tasks(model, spliced, tasks, settings, has_bos=corpus.has_bos)
    warnings = (
        *_warnings(measures, skills, dark_matter, store, rows, spliced),
        *copies(corpus, rows, seed=seed),
    )
    suites = _suites(model, plain, corpus, store, rows, settings, tasks, seed)
    evaluation = Evaluation(
        hookpoint=spliced.name,
        kind=spliced.kind,
        reads=spliced.reads,
        writes=spliced.writes,
        n_latents=spliced.n_latents,
        measures=measures,
        tasks=skills,
        density=quality.firing.histogram(),
        dark_matter=dark_matter,
        warnings=warnings,
        checked=stamp(),
        suites=suites,
    )
    return evaluation, autoencoder


def _warnings(
    measures: Mapping[str, Measure],
    skills: Sequence[TaskResult],
    dark_matter: DarkMatter,
    store: Store,
    rows: Rows,
    spliced: StandIn,
) -> tuple[Caution, ...]:
    return (
        *numbers_out_of_range(measures, skills, spliced.n_latents),
        *unexplained(measures, dark_matter),
        *probe(store, rows, spliced),
        *(Caution("definition_wrong", f"A known answer is not given: {wrong}.") for wrong in stamp().wrong),
    )


def _suites(
    model: LanguageModel,
    dictionary: AnyDictionary,
    corpus: Corpus,
    store: Store,
    rows: Rows,
    settings: Evaluate,
    tasks: Sequence[Task],
    seed: int,
) -> tuple[SuiteResult, ...]:
    """Those that are asked for: mostly none."""
    if not settings.suites:
        return ()
    assert isinstance(dictionary, SparseAutoencoder | NormalisedAutoencoder)  # asked before anything was measured
    from mohole.evaluate.suites.material import Material  # here: their cost is not paid by others
    from mohole.evaluate.suites.measure import measure_suites

    truth = read_truth(corpus, store, rows, settings, seed=seed) if corpus.labels else None
    return measure_suites(Material(model, dictionary, corpus, store, truth, tasks, settings, seed))
