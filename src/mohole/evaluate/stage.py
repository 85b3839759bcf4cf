"""The evaluate stage: measure a dictionary on held-out documents and write what was found. Two files.

`evaluation.json`, read back by `read_evaluation`:

    hookpoint, kind, reads, writes, n_latents
    measures       {name: {value, unit, low, high, n, n_of, n_documents, masks: {replaced, counted, scored},
                    baseline, definition, undefined}} with the names
                    fvu, r2_uncentred, mse, mse_per_dimension, cosine, length_ratio, relative_bias, cosine_centred,
                    fvu_by_dimension, fvu_by_row_legacy, fvu_trimmed, l0, l1, l1_by_length, firing_consistency,
                    dead, dense                                                        (rows of the store;
                                                            and fvu/HOOKPOINT, ..., where several are written)
                    decoder_norm, encoder_decoder_cosine, nearest_decoder_cosine,
                    mean_direction_cosine                                              (weights of an autoencoder)
                    ce_clean, ce_replaced, excess_ce, kl, dropped                      (through the model)
                    ce_A, kl_A for the ablations A: mean, zero, position_mean, resample
                    ce_recovered, kl_recovered (mean), ce_recovered_A, kl_recovered_A (the others)
                    error_norm_r2, error_r2, fvu_nonlinear, outlier_variance           (dark_matter_rows of the store)
    tasks          [{name, n, clean, clean_low, clean_high, replaced, replaced_low, replaced_high}]
    density        {edges: log10 of density, counts, zero, n_rows}
    dark_matter    {n_rows, classes: [{name, n, share_of_rows, share_of_error, fvu}], dense: [{latent, density, mean_cosine}]}
                    where share_of_error and fvu are measures
    warnings       [{name, sentence}]: fvu_above_one, fvu_near_one, fvu_undefined, recovered_above_one, recovered_below_zero,
                    recovered_undefined, dead, dense, biased, dropped, task_lost, few_rows, mean_leakage,
                    codes_depend_on_batch, better_elsewhere, better_scaled, better_otherwise, definition_wrong
    checked        {definitions: checksum of the sources of the metrics, n_answers, wrong: [sentence]}
    suites         [{suite, rated: [{name, measures: {dictionary, random, neurons, pca, probe: as above}}], left_out: [sentence]}]

`replicates.safetensors`: for each measure with an interval, by its name, float64 [replicate]: its value in each resampling of the
documents. Of evaluations with the same documents and seed they go together, one by one (`mohole compare-dictionaries`).

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

from collections.abc import Sequence
from pathlib import Path

from mohole.config import Evaluate
from mohole.corpus import Corpus, Task
from mohole.dictionary import AnyDictionary, NormalisedAutoencoder, SparseAutoencoder
from mohole.errors import StageError
from mohole.evaluate.dark_matter import measure_dark_matter
from mohole.evaluate.guards import numbers_out_of_range, probe, require_rows_of, unexplained
from mohole.evaluate.recovery import measure_recovery
from mohole.evaluate.results import RECOVERY_FILE, Caution, Evaluation, SuiteResult, write_evaluation
from mohole.evaluate.rows import Rows, choose_rows, measure_rows
from mohole.evaluate.splice import measure_splice
from mohole.evaluate.standin import stand_in
from mohole.evaluate.tasks import measure_tasks
from mohole.evaluate.truth import Marks, Truth
from mohole.evaluate.weights import measure_weights
from mohole.metrics.measure import as_json
from mohole.metrics.stamp import stamp
from mohole.model import LanguageModel
from mohole.record import write_json
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
        NumericsError: a NaN or an infinity, with its place.
    """
    spliced = stand_in(dictionary, model)
    rows = choose_rows(corpus, store, held_out=True, max_rows=settings.max_rows, seed=seed)
    require_rows_of(model, corpus, store, rows, spliced)
    quality = measure_rows(store, rows, spliced, seed=seed)
    in_model = measure_splice(model, [spliced], corpus, settings, seed=seed)
    unseen, dark_matter = measure_dark_matter(
        store, corpus, rows, spliced, quality.firing, settings.dark_matter_rows, seed=seed
    )
    autoencoder = dictionary if isinstance(dictionary, SparseAutoencoder | NormalisedAutoencoder) else None
    weights = measure_weights(autoencoder, quality.mean) if autoencoder else ()
    measures = {measure.name: measure for measure in (*quality.measures, *weights, *in_model, *unseen)}
    done = measure_tasks(model, spliced, tasks, settings, has_bos=corpus.has_bos)
    warnings = (
        *numbers_out_of_range(measures, done, spliced.n_latents),
        *unexplained(measures, dark_matter),
        *probe(store, rows, spliced),
        *(Caution("definition_wrong", f"A known answer is not given: {wrong}.") for wrong in stamp().wrong),
    )
    suites: tuple[SuiteResult, ...] = ()
    if settings.suites:
        if not isinstance(dictionary, SparseAutoencoder):
            raise StageError(
                f"evaluate.suites: for sparse autoencoders with decoder rows in model units; {spliced.name} is a "
                f"{spliced.kind}: leave them out"
            )
        from mohole.evaluate.material import Material  # here: most runs ask for none
        from mohole.evaluate.suites import measure_suites

        truth = _truth(corpus, store, rows, settings, seed) if corpus.labels else None
        suites = measure_suites(Material(model, dictionary, corpus, store, truth, tasks, settings, seed))
    evaluation = Evaluation(
        hookpoint=spliced.name,
        kind=spliced.kind,
        reads=spliced.reads,
        writes=spliced.writes,
        n_latents=spliced.n_latents,
        measures=measures,
        tasks=done,
        density=quality.firing.histogram(),
        dark_matter=dark_matter,
        warnings=warnings,
        checked=stamp(),
        suites=suites,
    )
    write_evaluation(out, evaluation)
    if settings.recovery and corpus.labels and autoencoder:
        recovery = measure_recovery(store, rows, autoencoder, corpus, settings, seed=seed, model=model)
        write_json(out / RECOVERY_FILE, as_json(recovery))


def _truth(corpus: Corpus, store: Store, rows: Rows, settings: Evaluate, seed: int) -> Truth:
    chosen = choose_rows(corpus, store, held_out=False, max_rows=settings.selection_rows, seed=seed)
    return Truth(list(corpus.labels), Marks(corpus, chosen), Marks(corpus, rows), settings.min_positives)
