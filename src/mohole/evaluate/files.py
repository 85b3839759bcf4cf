"""The files of an evaluation, written and read. Three files, two of them JSON.

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
                    codes_depend_on_batch, better_elsewhere, better_scaled, better_otherwise, definition_wrong,
                    copies
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

What each field means is said at the classes in results.py and recovery/results.py, which have exactly these fields. null stands
for an undefined number, never for a NaN.
"""

from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from mohole.errors import ArtifactError
from mohole.evaluate.recovery.results import Recovery
from mohole.evaluate.results import Evaluation
from mohole.metrics.measure import as_json
from mohole.record import write_json
from mohole.tensors import open_tensors, write_tensors

EVALUATION_FILE = "evaluation.json"
RECOVERY_FILE = "recovery.json"
REPLICATES_FILE = "replicates.safetensors"

Result = TypeVar("Result")


def write_evaluation(out: Path, evaluation: Evaluation) -> None:
    """Write an evaluation into a folder: its JSON, and the replicates of its measures."""
    write_json(out / EVALUATION_FILE, as_json(evaluation))
    kept = {name: each.replicates for name, each in evaluation.measures.items() if each.replicates is not None}
    write_tensors(out / REPLICATES_FILE, kept)


def write_recovery(out: Path, recovery: Recovery) -> None:
    """Write what was found against truth into a folder."""
    write_json(out / RECOVERY_FILE, as_json(recovery))


def read_replicates(path: Path | str) -> dict[str, NDArray[np.float64]]:
    """The replicates of each measure of a finished evaluation.

    Raises:
        ArtifactError: missing or damaged.
    """
    return {name: np.array(values) for name, values in open_tensors(Path(path) / REPLICATES_FILE).items()}


def read_evaluation(path: Path | str) -> Evaluation:
    """The evaluation in a finished evaluation folder.

    Raises:
        ArtifactError: missing or damaged.
    """
    return _read(Path(path) / EVALUATION_FILE, Evaluation)


def read_recovery(path: Path | str) -> Recovery | None:
    """The recovery in a finished evaluation folder; None where the corpus had no truth, or it was not asked for.

    Raises:
        ArtifactError: damaged.
    """
    file = Path(path) / RECOVERY_FILE
    return _read(file, Recovery) if file.is_file() else None


def _read(file: Path, kind: type[Result]) -> Result:
    try:
        return TypeAdapter(kind).validate_json(file.read_bytes())
    except FileNotFoundError:
        raise ArtifactError(f"{file}: no such file; `mohole evaluate RECIPE` makes it") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ArtifactError(
            f"{file}: damaged at {place or 'its start'} ({first['msg']}); delete its folder and make it again"
        ) from None
