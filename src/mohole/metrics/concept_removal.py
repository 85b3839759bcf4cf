"""What does removing a concept's latents change? SCR (a spurious correlation removed) and TPP (one class hit, others spared).

Latents are removed by taking their part out of the row, so what the dictionary did not explain stays. Accuracies are arrays
over replicates of documents, so that every score has its interval.
"""

import numpy as np
from numpy.typing import NDArray

from mohole.metrics.codes import CodeMatrix

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
Bools = NDArray[np.bool_]

LEAST_GAP = 0.02
"""Less accuracy than this between what is and what could be is nothing to recover: dividing by it gives noise."""


def attribution(codes: CodeMatrix, positive: Bools, decoder: NDArray[np.floating], direction: Float64) -> Float64:
    """For each latent, how much it moves the probe between the classes: (mean f+ - mean f-) (direction . d).

    Signed: positive speaks for the class. The dot product takes the decoder row as long as it is, so that values twice as
    large with rows half as long are the same latent; a cosine in its place is right for rows of length 1 only.
    Source: SAEBench (arXiv 2503.09532), appendix on SCR and TPP; Marks et al. 2024 (arXiv 2403.19647).
    """
    means = [
        np.asarray(codes[np.flatnonzero(side)].astype(np.float64).mean(axis=0)).ravel()
        for side in (positive, ~positive)
    ]
    return np.asarray((means[0] - means[1]) * (decoder.astype(np.float64) @ direction))


def without(rows: NDArray[np.floating], codes: CodeMatrix, decoder: NDArray[np.floating], latents: Int64) -> Float64:
    """Rows with these latents at zero and everything else as it was: x - sum f_j d_j. The dictionary's error stays in.

    Putting the reconstruction in the row's place instead would charge the concept with all that is not reconstructed.
    """
    return np.asarray(rows - codes[:, latents].toarray().astype(np.float64) @ decoder[latents].astype(np.float64))


def scr(biased: Float64, ablated: Float64, oracle: Float64) -> Float64:
    """Share of a spurious correlation removed: (ablated - biased) / (oracle - biased). 1 is all, 0 none; below 0 it harms.

    All three are accuracies about the wanted label on balanced documents: of a probe trained where a second label always
    agrees with it, of the same probe with the second label's latents removed, and of one trained on balanced documents.
    NaN where the bias costs less than LEAST_GAP. It may exceed 1; it is never cut off.
    Source: Karvonen et al. 2024 (arXiv 2411.18895), who write 0 where it is undefined.
    """
    gap = oracle - biased
    return np.divide(ablated - biased, gap, out=np.full_like(gap, np.nan), where=gap >= LEAST_GAP)


def tpp(before: Float64, after: Float64, *, chance: float | None = None) -> Float64:
    """Targeted probe perturbation: mean over classes of (what its own probe loses - what the others' probes lose on average).

    Axes: before [..., class of the probe], after [..., class removed, class of the probe]. In points of accuracy; with
    `chance`, each loss is a share of what its probe has above chance: 1 is a class gone and the others untouched, 0 is
    damage without aim. NaN where a probe has less than LEAST_GAP above chance: it knows nothing to lose.
    Source: Karvonen et al. 2024 (arXiv 2411.18895).

    Raises:
        ValueError: fewer than two classes.
    """
    n = before.shape[-1]
    if n < 2:
        raise ValueError(f"tpp: {n} classes; without a second one nothing can be spared")
    lost = before[..., None, :] - after
    if chance is not None:
        known = (before - chance)[..., None, :]
        lost = np.divide(lost, known, out=np.full_like(lost, np.nan), where=known >= LEAST_GAP)
    own = np.trace(lost, axis1=-2, axis2=-1)
    return np.asarray(own / n - (lost.sum((-2, -1)) - own) / (n * (n - 1)))
