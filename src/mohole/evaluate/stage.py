"""The evaluate stage: measure a dictionary on held-out documents and write what was found. Two files.

`evaluation.json`, read back by `read_evaluation`:

    hookpoint, n_latents
    measures       {name: {value, unit, low, high, n, n_of, n_documents, masks: {replaced, counted, scored},
                    baseline, definition, undefined}} with the names
                    fvu, r2_uncentred, mse, cosine, relative_bias, l0, dead, dense     (rows of the store)
                    ce_clean, ce_replaced, ce_mean, ce_zero, excess_ce,
                    ce_recovered, ce_recovered_zero, kl                                (through the model)
    tasks          [{name, n, clean, clean_low, clean_high, replaced, replaced_low, replaced_high}]
    density        {edges: log10 of density, counts, zero, n_rows}
    warnings       [sentence]

`recovery.json`, only where the corpus has truth, read back by `read_recovery`:

    hookpoint, n_rows, n_documents, n_rows_selection, n_documents_selection, masks, definitions
    words          one family result over all families of words, or null
    families       [{family, is_words, n_labels, f1: {latent, neuron, pca, random, probe}, f1_low, f1_high,
                     margin, margin_low, margin_high, auroc: {latent, neuron, pca, random, probe},
                     always_yes, f1_all_latent, f1_all_random, auroc_all_latent, auroc_all_random}]
    labels         [{label, family, contrast, contrast_text, n_positive, n_negative, n_documents, n_positive_selection,
                     n_negative_selection, latent, neuron, pca, random, probe, firing_f1, firing_latent,
                     all_latent, f1_all_latent, f1_all_random,
                     auroc_all_latent, auroc_all_random, cause}]; latent, neuron, pca, random and probe are each
                    {f1, f1_low, f1_high, precision, recall, candidate, sign, threshold, f1_selection,
                     auroc, auroc_low, auroc_high, auroc_candidate}; cause is null where the latent was not tried, or
                    {latent, maximum, gap, edits: {up, random, zero, ablate}}, of each edit {moved, share, kl, specificity};
                    all of these are measures as above
    multilingual   {share, low, high, share_random, concepts: [{label, latent, languages: [{language, rate, n}], n_fired,
                     other_rate, n_other, is_multilingual}]}
    unscored       [{label, n_positive, n_positive_selection, reason}]
    warnings       [sentence]

What each field means is said at the classes in results.py. null stands for an undefined number, never for a NaN.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from mohole.config import Evaluate
from mohole.corpus import Corpus, Task
from mohole.dictionary import SparseAutoencoder
from mohole.evaluate.recovery import measure_recovery
from mohole.evaluate.results import EVALUATION_FILE, RECOVERY_FILE, Evaluation, TaskResult
from mohole.evaluate.rows import choose_rows, measure_rows
from mohole.evaluate.splice import measure_splice
from mohole.evaluate.tasks import measure_tasks
from mohole.metrics import Measure
from mohole.model import LanguageModel
from mohole.record import write_json
from mohole.store import Store

_WORST_FVU = 0.9
_TASK_DROP = 0.02
_DEAD_SHARE = 0.1


def evaluate(
    out: Path,
    model: LanguageModel,
    dictionary: SparseAutoencoder,
    corpus: Corpus,
    store: Store,
    settings: Evaluate,
    *,
    seed: int,
    tasks: Sequence[Task] = (),
) -> None:
    """Write the evaluation's files into `out`. Every number comes from held-out documents.

    Args:
        store: rows of the dictionary's hookpoint over `corpus`, in any order.
        tasks: what the model must still be able to do. None: no task accuracies.

    Raises:
        StageError: no held-out rows, or a task that cannot be run.
        NumericsError: a NaN or an infinity, with its place.
    """
    rows = choose_rows(corpus, store, held_out=True, max_rows=settings.max_rows, seed=seed)
    quality = measure_rows(store, rows, dictionary, seed=seed)
    spliced = measure_splice(model, dictionary, corpus, quality.mean, settings, seed=seed)
    measures = {measure.name: measure for measure in (*quality.measures, *spliced)}
    done = measure_tasks(model, dictionary, tasks, settings, has_bos=corpus.has_bos)
    evaluation = Evaluation(
        hookpoint=dictionary.hookpoint,
        n_latents=dictionary.n_latents,
        measures=measures,
        tasks=done,
        density=quality.density,
        warnings=tuple(warnings_about(measures, done, dictionary.n_latents)),
    )
    write_json(out / EVALUATION_FILE, asdict(evaluation))
    if settings.recovery and corpus.labels:
        recovery = measure_recovery(store, rows, dictionary, corpus, settings, seed=seed, model=model)
        write_json(out / RECOVERY_FILE, asdict(recovery))


def warnings_about(measures: Mapping[str, Measure], tasks: Sequence[TaskResult], n_latents: int) -> Iterator[str]:
    """Sentences about numbers that should not be what they are."""
    fvu = measures["fvu"].value
    if fvu is not None and fvu > 1:
        yield f"FVU is {fvu:.3g}: worse than predicting the mean row. Is the dictionary for this model and hookpoint?"
    elif fvu is not None and fvu > _WORST_FVU:
        yield f"FVU is {fvu:.3g}: hardly better than predicting the mean row."
    for name in ("ce_recovered", "ce_recovered_zero"):
        value, baseline = measures[name].value, measures[name].baseline
        if value is None:
            yield f"CE recovered against {baseline} is undefined: {measures[name].undefined}."
        elif value > 1.02:
            yield f"CE recovered against {baseline} is {value:.3f}, above 1: the model predicts better with the reconstruction."
        elif value < 0:
            yield f"CE recovered against {baseline} is {value:.3f}: the reconstruction does more harm than the ablation."
    dead = measures["dead"]
    if dead.value is not None and dead.value > _DEAD_SHARE * n_latents:
        yield f"{dead.value:.0f} of {n_latents} latents fired in none of {dead.n} held-out rows."
    for task in tasks:
        if task.change < -_TASK_DROP:
            yield f"Task {task.name}: accuracy falls from {task.clean:.3f} to {task.replaced:.3f} under the reconstruction."
