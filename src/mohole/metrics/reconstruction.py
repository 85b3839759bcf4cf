"""How well rows are rebuilt: FVU, uncentred R^2, squared error, cosine, lengths, relative bias. One accumulator, mergeable.

Each document keeps (n, mean row, squared distance from that mean) and a few sums; documents are joined by the formula of
Chan, Golub & LeVeque 1979, so the centre is the mean over everything whatever the batches were. Centring each batch by its
own mean, as is often done, makes FVU depend on the batch size: 0.040 becomes 0.081 at batches of 2. What needs the mean
before the first row is in centred.py; FVU without the longest rows in longest.py.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from mohole.metrics.documents import grouped
from mohole.metrics.measure import ratio, require_finite

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

_SUMS = ("n", "spread", "error", "target_square", "output_square", "product", "cosine", "length_ratio", "has_length")


def counted_rows(
    target: Float[Tensor, "row d"],
    output: Float[Tensor, "row d"],
    documents: Int64,
    counted: Bool[Tensor, " row"] | None,
    place: str,
) -> tuple[Float[Tensor, "kept d"], Float[Tensor, "kept d"], Int64]:
    """The rows that count, with their documents. The others are never looked at, whatever they hold.

    Raises:
        NumericsError: a counted row holds a NaN or an infinity.
    """
    if counted is not None:
        target, output, documents = target[counted], output[counted], documents[counted.numpy()]
    require_finite(target, f"{place}: target")
    require_finite(output, f"{place}: output")
    return target, output, documents


class Reconstruction:
    """Sums over (target, output) rows, by document. Values are read as functions of document weights."""

    def __init__(self) -> None:
        self._parts: list[tuple[Int64, Float64, Float64]] = []  # documents, mean rows, sums in the order of _SUMS

    def add(
        self,
        target: Float[Tensor, "row d"],
        output: Float[Tensor, "row d"],
        documents: Int64,
        counted: Bool[Tensor, " row"] | None = None,
        *,
        place: str = "rows",
    ) -> None:
        """Add rows. Rows not `counted` are never looked at, whatever they hold.

        Raises:
            NumericsError: a counted row holds a NaN or an infinity.
        """
        target, output, documents = counted_rows(target, output, documents, counted, place)
        if len(target):
            self._parts.append(_by_document(target.double(), output.double(), documents))

    def merge(self, other: "Reconstruction") -> None:
        """Add what another accumulator has seen."""
        self._parts.extend(other._parts)

    @property
    def documents(self) -> Int64:
        """Ids of the documents seen, ascending."""
        return self._table()[0]

    @property
    def has_rows(self) -> bool:
        return bool(self._parts)

    @property
    def n_rows(self) -> int:
        return int(self._sum("n").sum())

    @property
    def mean(self) -> Float64:
        """The mean target row, over all rows seen."""
        _, means, sums = self._table()
        return np.asarray(sums[:, 0] @ means / sums[:, 0].sum())

    def fvu(self, weights: Float64) -> Float64:
        """Fraction of variance unexplained: sum |x - x^|^2 / sum |x - mean(x)|^2, the mean over all weighted rows."""
        _, means, sums = self._table()
        n = weights * sums[:, 0]
        # Spread of the documents' means, about a centre near the truth so that nothing large cancels.
        shift = means - self.mean
        total = n.sum(1)
        drift = ratio(n @ shift, np.broadcast_to(total[:, None], (len(n), shift.shape[1])))
        between = n @ (shift**2).sum(1) - total * (drift**2).sum(1)
        return ratio(weights @ self._sum("error"), weights @ self._sum("spread") + np.nan_to_num(between))

    def r2_uncentred(self, weights: Float64) -> Float64:
        """1 - sum |x - x^|^2 / sum |x|^2. Flattered by a large mean."""
        return 1.0 - ratio(weights @ self._sum("error"), weights @ self._sum("target_square"))

    def mse(self, weights: Float64) -> Float64:
        """Mean over rows of |x - x^|^2, summed over dimensions, in squared model units."""
        return ratio(weights @ self._sum("error"), weights @ self._sum("n"))

    def cosine(self, weights: Float64) -> Float64:
        """Mean over rows of cos(x, x^), uncentred; a zero row has cosine 0."""
        return ratio(weights @ self._sum("cosine"), weights @ self._sum("n"))

    def mse_per_dimension(self, weights: Float64) -> Float64:
        """`mse` divided by the number of dimensions: what torch's mse_loss gives for all rows at once."""
        return np.asarray(self.mse(weights) / self._table()[1].shape[1])

    def length_ratio(self, weights: Float64) -> Float64:
        """Mean over rows of |x^| / |x|: below 1 is shrinkage. Rows of length zero have no ratio and are left out."""
        return ratio(weights @ self._sum("length_ratio"), weights @ self._sum("has_length"))

    def relative_bias(self, weights: Float64) -> Float64:
        """sum |x^|^2 / sum x.x^: 1 is unbiased, below 1 is shrinkage (Rajamanoharan et al. 2024, eq. 10)."""
        return ratio(weights @ self._sum("output_square"), weights @ self._sum("product"))

    def _sum(self, name: str) -> Float64:
        return self._table()[2][:, _SUMS.index(name)]

    def _table(self) -> tuple[Int64, Float64, Float64]:
        if not self._parts:
            raise ValueError("no rows were added")
        if len(self._parts) > 1:
            self._parts = [_joined(self._parts)]
        return self._parts[0]


def fvu(target: Float[Tensor, "row d"], output: Float[Tensor, "row d"]) -> Float[Tensor, ""]:
    """Fraction of variance unexplained: 0 is perfect, 1 is no better than the mean, more is worse than the mean.

        fvu = sum |target - output|^2 / sum |target - mean(target)|^2

    The mean is over rows, per dimension. Not the mean of per-row ratios: that one weighs short vectors more.
    Source: Gao et al. 2024 (arXiv 2406.04093), "normalized MSE". float64.

    Raises:
        ValueError: fewer than two different rows, for which variance is undefined.
        NumericsError: a NaN or an infinity.
    """
    if len(target) < 2 or not bool((target != target[0]).any()):
        raise ValueError(f"fvu: {len(target)} rows without variance")
    one_document = np.zeros(len(target), dtype=np.int64)
    sums = Reconstruction()
    sums.add(target.detach().cpu(), output.detach().cpu(), one_document)
    return torch.tensor(sums.fvu(np.ones((1, 1)))[0], dtype=torch.float64)


def _by_document(target: Tensor, output: Tensor, documents: Int64) -> tuple[Int64, Float64, Float64]:
    unique, place = np.unique(documents, return_inverse=True)
    group = torch.from_numpy(place)
    n = torch.bincount(group, minlength=len(unique)).double()
    means = torch.zeros(len(unique), target.shape[1], dtype=torch.float64).index_add_(0, group, target) / n[:, None]
    length, output_length = target.norm(dim=1), output.norm(dim=1)
    norms = length * output_length
    product = (target * output).sum(1)
    columns = torch.stack(
        [
            torch.ones(len(target), dtype=torch.float64),
            (target - means[group]).square().sum(1),
            (target - output).square().sum(1),
            target.square().sum(1),
            output.square().sum(1),
            product,
            torch.where(norms > 0, product / norms.clamp(min=1e-300), torch.zeros_like(norms)),
            torch.where(length > 0, output_length / length.clamp(min=1e-300), torch.zeros_like(length)),
            (length > 0).double(),
        ],
        dim=1,
    )
    sums = torch.zeros(len(unique), len(_SUMS), dtype=torch.float64).index_add_(0, group, columns)
    return unique.astype(np.int64), means.numpy(), sums.numpy()


def _joined(parts: list[tuple[Int64, Float64, Float64]]) -> tuple[Int64, Float64, Float64]:
    """One entry per document: means weighted by n, spreads about the common mean (Chan's formula for many parts)."""
    documents = np.concatenate([part[0] for part in parts])
    old_means, old_sums = np.concatenate([part[1] for part in parts]), np.concatenate([part[2] for part in parts])
    unique, place = np.unique(documents, return_inverse=True)
    sums = grouped(place, old_sums, len(unique))
    share = old_sums[:, 0] / sums[place, 0]
    means = grouped(place, old_means * share[:, None], len(unique))
    np.add.at(sums[:, 1], place, old_sums[:, 0] * ((old_means - means[place]) ** 2).sum(1))
    return unique, means, sums
