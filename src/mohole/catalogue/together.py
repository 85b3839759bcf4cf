"""Which latents fire in the same tokens, over all tokens and not per batch: exact counts in any pieces, then the strongest.

Counting per batch, and keeping each batch's best, loses the pairs that are seldom best in a batch and often good.
"""

import numpy as np
from numpy.typing import NDArray

from mohole.kernels import together
from mohole.kernels.together import nothing_counted

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]

_HOLD = 1 << 24


class Together:
    """Firings of the latents [first, last) together with every latent. Add pieces in any order, merge, ask for the top.

    Tokens are kept as they come, 4 bytes a firing, as long as they are fewer than `hold` firings: usually less than the pairs
    they make, and the top of them is found without any pair being stored. Beyond that they are counted, into 12 bytes for
    each pair of latents that ever fired together: at most (last - first) * n_latents of those, and far fewer for sparse codes.
    So memory is 12 bytes * pairs + 20 * hold; narrow the range for less.
    """

    def __init__(self, first: int, last: int, n_latents: int, *, hold: int = _HOLD) -> None:
        if not 0 <= first <= last <= n_latents:
            raise ValueError(f"latents [{first}, {last}) of {n_latents}: no such range")
        self.first, self.last, self.n_latents = first, last, n_latents
        self._hold = hold
        self._sizes: list[Int64] = []
        self._latents: list[Int32] = []
        self._n_held = 0
        self._counted = nothing_counted(last - first)

    def add(self, row_starts: Int64, latents: Int32) -> None:
        """Add tokens: token i fires latents[row_starts[i]:row_starts[i + 1]], each named once.

        Raises:
            ValueError: a latent that the dictionary does not have, or rows that are not these latents.
        """
        if len(row_starts) == 0 or row_starts[0] != 0 or row_starts[-1] != len(latents):
            raise ValueError(f"row_starts are not those of {len(latents)} latents")
        if len(latents) == 0:
            return
        if not 0 <= int(latents.min()) <= int(latents.max()) < self.n_latents:
            raise ValueError(f"latents {latents.min()} to {latents.max()}, of {self.n_latents}")
        sizes = np.diff(row_starts)
        if (self.first, self.last) != (0, self.n_latents):  # only tokens in which the range fires
            ours = np.concatenate([[0], np.cumsum((latents >= self.first) & (latents < self.last))])
            wanted = ours[row_starts[1:]] > ours[row_starts[:-1]]
            latents, sizes = latents[np.repeat(wanted, sizes)], sizes[wanted]
        self._take(sizes, latents.astype(np.int32))

    def merge(self, other: "Together") -> None:
        """Add what another one of the same range has seen."""
        if (self.first, self.last, self.n_latents) != (other.first, other.last, other.n_latents):
            raise ValueError(
                f"latents [{self.first}, {self.last}) of {self.n_latents} and [{other.first}, {other.last}) of {other.n_latents}"
            )
        held = list(zip(other._sizes, other._latents, strict=True))  # a copy: the other one may be this one
        self._counted = together.add(self._counted, other._counted, self.n_latents)
        for sizes, latents in held:
            self._take(sizes, latents)

    def top(self, counts: Int64, n_tokens: int, n: int, *, least: int = 2) -> tuple[Int32, Int64, Float32]:
        """The n others with the largest phi with each latent of the range: latents, tokens together, phi; [last - first, n].

            phi = (N n_ij - n_i n_j) / sqrt(n_i (N - n_i) n_j (N - n_j))

        The correlation of two yes-or-no variables, whether each fires, over N tokens: 1 always together, 0 by chance, so that a
        latent that fires everywhere is nobody's. Source: Yule 1912 ("On the methods of measuring association between two
        attributes"). Only phi > 0. In float64 from whole numbers, and ordered as the float32 returned; of equal ones the smaller
        latent comes first. Places that cannot be filled hold latent -1 and zeros.

        Args:
            counts: [latent] tokens in which each fires, of all `n_tokens`.
            least: tokens together below which a pair is not named. Two latents that fired once, in one token, have phi 1 and
                say nothing: most pairs of a large dictionary's rare latents would be such.
        """
        if len(counts) != self.n_latents:
            raise ValueError(f"{len(counts)} counts of {self.n_latents} latents")
        found = together.best(*self._held(), self._counted, self.first, self.last, counts, n_tokens, n, least)
        return found.latents, found.counts, found.phi

    def _take(self, sizes: Int64, latents: Int32) -> None:
        self._sizes.append(sizes)
        self._latents.append(latents)
        self._n_held += len(latents)
        if self._n_held > self._hold:
            new = together.count(*self._held(), self.first, self.last, self.n_latents)
            self._counted = together.add(self._counted, new, self.n_latents)
            self._sizes, self._latents, self._n_held = [], [], 0

    def _held(self) -> tuple[Int64, Int32]:
        """The tokens kept, as compressed rows."""
        sizes = np.concatenate([np.zeros(1, np.int64), *self._sizes])
        return np.cumsum(sizes), np.concatenate([np.zeros(0, np.int32), *self._latents])
