"""Finds and scores the detectors of labels that share a contrast: latent, neuron, principal component, random latent, probe."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mohole.evaluate.recovery.floors import PrincipalComponents, Probe
from mohole.evaluate.recovery.ranking import Best, DenseRanking, SparseColumns, SparseRanking
from mohole.evaluate.recovery.results import LabelResult, Score, Unscored
from mohole.evaluate.recovery.summary import Found
from mohole.evaluate.recovery.truth import Contrast, Marks, family_of, thinned
from mohole.metrics import auroc_by_document, best_cut, confusion, document_weights, interval

Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Side:
    """One side of the split: its rows, as vectors and as codes of the dictionary and of the random one."""

    marks: Marks
    vectors: Float32
    latents: SparseColumns
    randoms: SparseColumns

    @cached_property
    def all_latents(self) -> SparseRanking:
        return SparseRanking(self.latents)

    @cached_property
    def all_randoms(self) -> SparseRanking:
        return SparseRanking(self.randoms)


class Resampled:
    """How often each held-out document counts in each replicate."""

    def __init__(self, row_documents: Int64, seed: int) -> None:
        documents, self._place = np.unique(row_documents, return_inverse=True)
        self._weights = document_weights(seed, documents)

    def f1(self, rows: Int64, decided: Bools, positive: Bools) -> Float64:
        """F1 in each replicate; NaN in one without a positive."""
        of_row = self._place[rows]
        right, passed, real = (
            self._weights @ np.bincount(of_row, weights=hits, minlength=self._weights.shape[1])
            for hits in (decided & positive, decided, positive)
        )
        f1: Float64 = np.divide(2 * right, passed + real, out=np.full(len(right), np.nan), where=real > 0)
        return f1


class Finder:
    """Finds and scores detectors for the labels of one contrast."""

    def __init__(
        self,
        selection: Side,
        scoring: Side,
        components: PrincipalComponents,
        contrast: Contrast,
        resampled: Resampled,
        seed: int,
    ) -> None:
        self._components = components
        self._selection, self._scoring, self._contrast, self._resampled = selection, scoring, contrast, resampled
        rows = selection.marks.contrast_rows(contrast)
        self._chosen = thinned(rows, selection.marks.rows.tokens, seed)
        self._scored = scoring.marks.contrast_rows(contrast)

    @cached_property
    def _latents(self) -> SparseRanking:
        return SparseRanking(self._selection.latents.take(self._chosen), self._selection.latents.totals)

    @cached_property
    def _randoms(self) -> SparseRanking:
        return SparseRanking(self._selection.randoms.take(self._chosen), self._selection.randoms.totals)

    @cached_property
    def _neurons(self) -> DenseRanking:
        return DenseRanking(self._selection.vectors[self._chosen])

    @cached_property
    def _principal(self) -> DenseRanking:
        return DenseRanking(self._components.scores(self._selection.vectors[self._chosen]))

    def find(self, label: str, min_positives: int) -> Found | Unscored:
        """The label's result, or why it has none."""
        chosen = np.isin(self._chosen, self._selection.marks.of(label), assume_unique=True)
        scored = np.isin(self._scored, self._scoring.marks.of(label), assume_unique=True)
        fewest = min(int(side.sum()) for side in (chosen, ~chosen, scored, ~scored))
        if fewest < min_positives:
            reason = f"fewer than {min_positives} tokens with it or without it, to choose on or to score on"
            return Unscored(label, int(scored.sum()), int(chosen.sum()), reason)
        places = np.flatnonzero(chosen)
        scores: dict[str, tuple[Score, Float64]] = {
            "latent": self._sparse(self._latents, self._selection.latents, self._scoring.latents, chosen, scored),
            "neuron": self._dense(self._neurons, _coordinate, chosen, scored),
            "pca": self._dense(self._principal, self._components.score, chosen, scored),
            "random": self._sparse(self._randoms, self._selection.randoms, self._scoring.randoms, chosen, scored),
            "probe": self._probe(chosen, scored),
        }
        firing = self._latents.best_firing_f1(places)
        fires = self._scoring.latents.column(firing.column, self._scored) > 0
        alone, randomly = (
            self._f1_against_all(label, *side)
            for side in (
                (self._selection.all_latents, self._selection.latents, self._scoring.latents),
                (self._selection.all_randoms, self._selection.randoms, self._scoring.randoms),
            )
        )
        result = LabelResult(
            label=label,
            family=family_of(label),
            contrast=self._contrast.kind,
            contrast_text=self._contrast.text(label),
            n_positive=int(scored.sum()),
            n_negative=int((~scored).sum()),
            n_documents=len(np.unique(self._scoring.marks.rows.documents[self._scored[scored]])),
            n_positive_selection=int(chosen.sum()),
            n_negative_selection=int((~chosen).sum()),
            latent=scores["latent"][0],
            neuron=scores["neuron"][0],
            pca=scores["pca"][0],
            random=scores["random"][0],
            probe=scores["probe"][0],
            firing_f1=confusion(fires, scored).f1,
            firing_latent=firing.column,
            all_latent=alone.column,
            f1_all_latent=alone.score,
            f1_all_random=randomly.score,
            auroc_all_latent=self._against_all(label, self._selection.all_latents, self._scoring.all_latents),
            auroc_all_random=self._against_all(label, self._selection.all_randoms, self._scoring.all_randoms),
        )
        return Found(result, {name: replicates for name, (_, replicates) in scores.items()})

    def _sparse(
        self,
        ranking: SparseRanking,
        choose_from: SparseColumns,
        score_from: SparseColumns,
        chosen: Bools,
        scored: Bools,
    ) -> tuple[Score, Float64]:
        places = np.flatnonzero(chosen)
        by_f1, by_auroc = ranking.best_f1(places), ranking.best_auroc(places)
        return self._score(
            choose_from.column(by_f1.column, self._chosen),
            score_from.column(by_f1.column, self._scored),
            score_from.column(by_auroc.column, self._scored),
            (by_f1, by_auroc),
            chosen,
            scored,
        )

    def _dense(
        self, ranking: DenseRanking, column: Callable[[Float32, int], Float64], chosen: Bools, scored: Bools
    ) -> tuple[Score, Float64]:
        """`column`: of rows and a column's number, its values."""
        places = np.flatnonzero(chosen)
        by_f1, by_auroc = ranking.best_f1(places), ranking.best_auroc(places)

        def values(side: Side, rows: Int64, best: Best) -> Float64:
            return np.asarray(best.sign * column(side.vectors[rows], best.column))

        return self._score(
            values(self._selection, self._chosen, by_f1),
            values(self._scoring, self._scored, by_f1),
            values(self._scoring, self._scored, by_auroc),
            (by_f1, by_auroc),
            chosen,
            scored,
        )

    def _probe(self, chosen: Bools, scored: Bools) -> tuple[Score, Float64]:
        rows = self._selection.vectors[self._chosen]
        probe = Probe(rows, chosen)
        outcome = probe.scores(self._scoring.vectors[self._scored])
        return self._score(probe.scores(rows), outcome, outcome, None, chosen, scored)

    def _score(
        self,
        choosing: Float64,
        scoring: Float64,
        ranked: Float64,
        candidates: tuple[Best, Best] | None,
        chosen: Bools,
        scored: Bools,
    ) -> tuple[Score, Float64]:
        """Cut `scoring` where `choosing` is cut best; rank by `ranked`."""
        cut = best_cut(choosing, chosen)
        decided = scoring > cut.threshold
        counts = confusion(decided, scored)
        replicates = self._resampled.f1(self._scored, decided, scored)
        low, high = interval(replicates)
        area = auroc_by_document(ranked, scored, self._scoring.marks.rows.documents[self._scored])
        score = Score(
            f1=counts.f1,
            f1_low=low,
            f1_high=high,
            precision=counts.precision,
            recall=counts.recall,
            candidate=candidates[0].column if candidates else None,
            sign=_sign(candidates),
            threshold=cut.threshold,
            f1_selection=cut.f1,
            auroc=area.value,
            auroc_low=area.low,
            auroc_high=area.high,
            auroc_candidate=candidates[1].column if candidates else None,
        )
        return score, replicates

    def _f1_against_all(
        self, label: str, ranking: SparseRanking, choose_from: SparseColumns, score_from: SparseColumns
    ) -> Best:
        """The column with the best F1 among all tokens of the selection side, and its F1 among all of the scoring side."""
        column = ranking.best_f1(self._selection.marks.of(label)).column
        positives = self._selection.marks.mask(label)
        rows, values = choose_from.of_column(column)
        if len(rows) == 0:
            return Best(column, 1, 0.0)
        hits = positives[rows]
        cut = best_cut(values.astype(np.float64), hits, silent_positives=int(positives.sum() - hits.sum()))
        rows, values = score_from.of_column(column)
        positives = self._scoring.marks.mask(label)
        missed = np.setdiff1d(np.flatnonzero(positives), rows)  # silent where it holds
        decided = np.concatenate([values > cut.threshold, np.zeros(len(missed), dtype=np.bool_)])
        real = np.concatenate([positives[rows], np.ones(len(missed), dtype=np.bool_)])
        return Best(column, 1, confusion(decided, real).f1)

    def _against_all(self, label: str, choosing: SparseRanking, judging: SparseRanking) -> float:
        best = choosing.best_auroc(self._selection.marks.of(label)).column
        return float(judging.auroc(self._scoring.marks.of(label))[best])


def _coordinate(rows: Float32, column: int) -> Float64:
    return rows[:, column].astype(np.float64)


def _sign(candidates: tuple[Best, Best] | None) -> Literal[1, -1]:
    return -1 if candidates and candidates[0].sign < 0 else 1
