"""FVU with a few of the longest rows apart: a handful of huge rows (attention sinks) can be most of the variance.

Which rows are the longest is known when all were seen. So the longest so far are kept as rows, outside the sums, and go into
the sums when a longer one comes: exact for any batches, and nothing large is subtracted again.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from mohole.metrics.reconstruction import Reconstruction, counted_rows

Int64 = NDArray[np.int64]


class LongestApart:
    """Sums over rows, those `n_longest` of largest norm apart. Of equal norms, the rows with the larger error are apart.

    Take a share (a thousandth) of the rows that there will be: a share of those seen so far could not be exact.
    """

    def __init__(self, n_longest: int) -> None:
        self.n_longest = n_longest
        self.rest = Reconstruction()
        """Sums over all rows but the longest."""
        self._target = self._output = torch.zeros(0, 0, dtype=torch.float64)
        self._documents: Int64 = np.zeros(0, dtype=np.int64)

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
        if len(self._target):
            target, output = torch.cat([self._target, target.double()]), torch.cat([self._output, output.double()])
            documents = np.concatenate([self._documents, documents])
        norms, errors = target.double().square().sum(1), (target.double() - output.double()).square().sum(1)
        order = torch.from_numpy(np.lexsort((documents, errors.numpy(), norms.numpy())))
        rest, apart = order.tensor_split([max(0, len(order) - self.n_longest)])
        rest = rest.sort().values  # as they came: documents in a row are summed together
        self.rest.add(target[rest], output[rest], documents[rest.numpy()], place=place)
        self._target, self._output = target[apart].double(), output[apart].double()
        self._documents = documents[apart.numpy()]

    def merge(self, other: "LongestApart") -> None:
        """Add what another accumulator has seen.

        Raises:
            ValueError: it keeps another number of rows apart.
        """
        if self.n_longest != other.n_longest:
            raise ValueError(f"{self.n_longest} and {other.n_longest} longest rows apart do not go together")
        self.rest.merge(other.rest)
        if len(other._target):
            self.add(other._target, other._output, other._documents)

    @property
    def whole(self) -> Reconstruction:
        """Sums over all rows."""
        sums = Reconstruction()
        sums.merge(self.rest)
        sums.add(self._target, self._output, self._documents)
        return sums
