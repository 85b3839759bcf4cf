"""A dictionary held against the features that the rows were made of: one value for each score, with n and definition."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from mohole.dictionary import SparseAutoencoder
from mohole.errors import ArtifactError
from mohole.metrics import DocumentSums, Masks, Measure, Reconstruction, measured
from mohole.metrics.known_features import Detection, Pairs, cosines, detection, found, mcc, own_latents, uniqueness
from mohole.progress import track
from mohole.synthetic.world import SyntheticWorld

Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]

SCORES_FILE = "scores.json"
FIRST_SCORED = 1 << 40
"""Rows from this id on are scored: no store holds them, so none was trained on."""
_BATCH = 512
_MASKS = Masks(counted="rows drawn for scoring, that are in no store")
_COLUMNS = ("rows", "latents", "features", "shrinkage", "mass", "found")


def score(world: SyntheticWorld, dictionary: SparseAutoencoder, *, n_rows: int, seed: int = 0) -> dict[str, Measure]:
    """Every score of a dictionary, by name, on `n_rows` rows that no training has seen.

    Intervals are over batches of 512 rows, which are independent; scores of directions alone have none.
    """
    cosine = cosines(dictionary.directions(torch.arange(dictionary.n_latents)), world.directions)
    best, own = cosine.abs().argmax(dim=1).numpy(), own_latents(cosine)
    counts = Detection(*(np.zeros(dictionary.n_latents, dtype=np.int64) for _ in range(3)))
    sums, rebuilt = DocumentSums(_COLUMNS), Reconstruction()
    with track("score: rows", n_rows, "rows") as tracker:
        for batch, start in enumerate(range(0, n_rows, _BATCH)):
            firings = world.firings(FIRST_SCORED + np.arange(start, min(start + _BATCH, n_rows)))
            rows = world.rows(firings)
            codes = dictionary.encode(rows)
            output = dictionary.decode(codes)
            latents = Pairs(codes.rows.numpy(), codes.latents.numpy(), dictionary.n_latents)
            features = Pairs(firings.rows, firings.features, world.settings.n_features)
            counts = counts + detection(best, latents, features)
            hits = found(own.numpy(), latents, features)
            mass = firings.magnitudes.astype(np.float64)
            shrinkage = (output.norm(dim=1) / rows.norm(dim=1).clamp_min(1e-6)).double().sum()
            line = [len(rows), len(latents.rows), len(features.rows), float(shrinkage), mass.sum(), mass[hits].sum()]
            sums.add(np.array([batch]), np.array([line], dtype=np.float64), place="scores")
            rebuilt.add(rows, output, np.full(len(rows), batch, dtype=np.int64), place="synthetic rows")
            tracker.advance(len(rows))
    return {
        measure.name: measure
        for measure in (*_of_rows(sums, rebuilt, n_rows, seed), *_of_latents(cosine, own, counts, n_rows))
    }


def read_scores(path: Path | str) -> dict[str, Measure]:
    """The scores in a finished folder of them, by name.

    Raises:
        ArtifactError: missing or damaged.
    """
    file = Path(path) / SCORES_FILE
    try:
        return TypeAdapter(dict[str, Measure]).validate_json(file.read_bytes())
    except (FileNotFoundError, ValidationError):
        raise ArtifactError(
            f"{file}: missing or damaged; delete its folder, and `mohole synthesize RECIPE` makes it again"
        ) from None


def _of_rows(sums: DocumentSums, rebuilt: Reconstruction, n_rows: int, seed: int) -> list[Measure]:
    batches = sums.documents
    return [
        measured(
            statistic, batches, seed=seed, name=name, unit=unit, n=n_rows, n_of="rows", masks=_MASKS, definition=definition
        )
        for name, unit, statistic, definition in (
            ("fvu", "share of variance", rebuilt.fvu, "sum |x - x^|^2 / sum |x - mean(x)|^2"),
            ("l0", "latents per row", sums.mean_of("latents", "rows"), "mean number of latents that fire"),
            ("true_l0", "features per row", sums.mean_of("features", "rows"), "mean number of features that fire"),
            ("shrinkage", "ratio", sums.mean_of("shrinkage", "rows"), "mean of |x^| / |x|; 1 is none"),
            ("found_mass", "share of magnitude", sums.mean_of("found", "mass"),
             "of all features' summed magnitudes, the share that fires together with the feature's own latent: the nearest of "
             "those whose best feature by signed cosine it is. Features that are no latent's count, and are not found"),
        )
    ]  # fmt: skip


def _of_latents(cosine: torch.Tensor, own: torch.Tensor, counts: Detection, n_rows: int) -> list[Measure]:
    n_latents, n_features = cosine.shape
    is_best = "its best feature by |cosine|, mean over latents; a latent that never fires scores 0"
    return [
        Measure(
            name=name, value=float(value), unit=unit, low=None, high=None, n=n, n_of=n_of, n_documents=0, masks=_MASKS,
            baseline="", definition=definition,
        )
        for name, value, unit, n, n_of, definition in (
            ("mcc", mcc(cosine), "cosine", min(n_latents, n_features), "matched pairs",
             "mean |cosine| of the best one-to-one matching; features that are left over do not count"),
            ("uniqueness", uniqueness(cosine), "share of latents", n_latents, "latents",
             "distinct features that are some latent's best by |cosine|, of the number of latents"),
            ("precision", counts.precision.mean(), "share", n_rows, "rows", f"precision of a latent as a detector of {is_best}"),
            ("recall", counts.recall.mean(), "share", n_rows, "rows", f"recall of a latent as a detector of {is_best}"),
            ("f1", counts.f1.mean(), "F1", n_rows, "rows", f"F1 of a latent as a detector of {is_best}"),
            ("owned", float((own >= 0).float().mean()), "share of features", n_features, "features",
             "features that have a latent of their own, by signed cosine"),
            ("dead", int((counts.latent == 0).sum()), "latents", n_rows, "rows", "latents that fire in no scored row"),
        )
    ]  # fmt: skip
