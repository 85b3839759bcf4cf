"""Per-latent statistics that may be gathered in any pieces and any order and are always the same bytes. No text, no files.

Three monoids: `Moments` (count, sum, maximum), `TopDocuments` (the strongest distinct documents), `IntervalSample` (documents
drawn uniformly from each activation interval). Each has `add` for firings and `merge` for another of its kind; both are
associative and commutative, ties included, so workers may cut the tokens as they like (law 1).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mohole import keys
from mohole.catalogue.layout import LOWEST_EXPONENT, N_EXPONENTS
from mohole.errors import NumericsError

Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]

_MANTISSA_BITS = 24
_MANY = 1 << 16


@dataclass(frozen=True)
class Firings:
    """Positive activations, one per entry, in any order: which latent, how strong, at which token of which document."""

    latents: Int64
    values: Float32
    tokens: Int64
    documents: Int64

    def __len__(self) -> int:
        return len(self.values)

    def at(self, places: "Int64 | Bool") -> "Firings":
        return Firings(self.latents[places], self.values[places], self.tokens[places], self.documents[places])

    def and_also(self, other: "Firings") -> "Firings":
        return Firings(
            np.concatenate([self.latents, other.latents]),
            np.concatenate([self.values, other.values]),
            np.concatenate([self.tokens, other.tokens]),
            np.concatenate([self.documents, other.documents]),
        )


def no_firings() -> Firings:
    return Firings(
        np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(0, np.int64), np.zeros(0, np.int64)
    )  # fmt: skip


class Moments:
    """Count, sum and maximum of each latent's activations, and how many there are between each two powers of two.

    The sum is exact: a float32 is a 24-bit whole number times a power of two, and whole numbers are added per power. A sum
    of floats would depend on the order. (Activations below 2^-32 are rounded to multiples of 2^-55, each on its own.)
    """

    def __init__(self, n_latents: int) -> None:
        self.counts = np.zeros(n_latents, dtype=np.int64)
        self.maximum = np.zeros(n_latents, dtype=np.float32)
        self.magnitudes = np.zeros((n_latents, N_EXPONENTS), dtype=np.int64)
        """[latent, i]: activations in [2^(i-32), 2^(i-31)); what is weaker counts in the first."""
        self._mantissas = np.zeros((n_latents, N_EXPONENTS), dtype=np.int64)

    def add(self, firings: Firings) -> None:
        """Count these in.

        Raises:
            NumericsError: an activation of 2^32 or more, or not a number.
        """
        if len(firings) == 0:
            return
        n_latents, values = len(self.counts), firings.values.astype(np.float64)
        if not (values.max() < 2.0**32):
            raise NumericsError(f"latent {firings.latents[values.argmax()]}: activation {values.max():g}, 2^32 or more")
        exponents = np.maximum(np.frexp(values)[1], LOWEST_EXPONENT)
        whole = np.rint(np.ldexp(values, _MANTISSA_BITS - exponents))
        slots = firings.latents * N_EXPONENTS + (exponents - LOWEST_EXPONENT)
        sums = np.bincount(slots, whole, minlength=n_latents * N_EXPONENTS)  # exact below 2^53: 2^29 firings a call
        self._mantissas += sums.astype(np.int64).reshape(n_latents, N_EXPONENTS)
        self.magnitudes += np.bincount(slots, minlength=n_latents * N_EXPONENTS).reshape(n_latents, N_EXPONENTS)
        self.counts += np.bincount(firings.latents, minlength=n_latents)
        np.maximum.at(self.maximum, firings.latents, firings.values)

    def merge(self, other: "Moments") -> None:
        self.counts += other.counts
        self.magnitudes += other.magnitudes
        self._mantissas += other._mantissas
        np.maximum(self.maximum, other.maximum, out=self.maximum)

    @property
    def sums(self) -> Float64:
        """Sum of each latent's activations, one rounding per power of two."""
        units = np.ldexp(1.0, np.arange(N_EXPONENTS) + (LOWEST_EXPONENT - _MANTISSA_BITS))
        return np.ascontiguousarray(np.add.accumulate(self._mantissas * units, axis=1)[:, -1])


class TopDocuments:
    """The n strongest distinct documents of each latent, each by its best token: value first, then the earlier token.

    A document in the final list is in the list of every piece that holds its best token, because documents only get
    stronger by merging; so pieces may be cut to n before they are merged.
    """

    def __init__(self, n_latents: int, n_documents: int, n: int) -> None:
        self.n = n
        self._n_documents = n_documents
        self._threshold = np.zeros(n_latents, dtype=np.float32)
        self.firings = no_firings()
        """The kept ones, by latent, then strongest first."""

    def add(self, firings: Firings) -> None:
        """Offer these. What is weaker than n documents already kept is dropped unsorted: late chunks cost little."""
        if len(firings) > _MANY:  # every sixteenth first: they raise the bar
            self._offer(firings.at(np.arange(0, len(firings), 16)))
        self._offer(firings)

    def _offer(self, firings: Firings) -> None:
        offered = firings.at(np.flatnonzero(firings.values >= self._threshold[firings.latents]))
        if len(offered) == 0:
            return
        both = self.firings.and_also(offered)
        both = both.at(np.lexsort((both.tokens, -both.values, both.latents)))
        _, first = np.unique(both.latents * self._n_documents + both.documents, return_index=True)
        both = both.at(np.sort(first))
        ranks = rank_in_group(both.latents)
        self.firings = both.at(ranks < self.n)
        last = both.at(ranks == self.n - 1)
        self._threshold[last.latents] = last.values

    def merge(self, other: "TopDocuments") -> None:
        self.add(other.firings)


class IntervalSample:
    """For each latent and activation interval, documents drawn uniformly from those that fire in it, by keyed hash.

    Intervals are half-open, (low, high], of equal width from 0 to the latent's maximum, which belongs to the last one. A
    document's chance does not depend on how often it fires; within it, one of its tokens in the interval is drawn.
    """

    def __init__(self, maximum: Float32, n_intervals: int, n: int, *, seed: int, first_latent: int = 0) -> None:
        """Args:
        n: documents kept for each interval.
        first_latent: what latent 0 here is called in the dictionary: the draw is keyed by that.
        """
        self.n = n
        self.seed = seed
        self.first_latent = first_latent
        self.n_intervals = n_intervals
        self._edges = interval_edges(maximum, n_intervals)
        self.counts = np.zeros((len(maximum), n_intervals), dtype=np.int64)
        """Activations in each interval; they add up to the latent's count."""
        self._threshold = np.full(len(maximum) * n_intervals, np.iinfo(np.uint64).max, dtype=np.uint64)
        self._group, self._firings = np.zeros(0, dtype=np.int64), no_firings()
        self._document_keys = np.zeros(0, dtype=np.uint64)

    def add(self, firings: Firings) -> None:
        groups = self._groups(firings)
        self.counts += np.bincount(groups, minlength=self.counts.size).reshape(self.counts.shape)
        if len(firings) > _MANY:  # every sixteenth first: they lower the bar, and most of the others need not be sorted
            few = np.arange(0, len(firings), 16)
            self._offer(groups[few], firings.at(few))
        self._offer(groups, firings)

    def merge(self, other: "IntervalSample") -> None:
        self.counts += other.counts
        self._offer(other._group, other._firings)

    def _groups(self, firings: Firings) -> Int64:
        return firings.latents * self.n_intervals + interval_of(firings.values, self._edges[firings.latents])

    def _offer(self, groups: Int64, firings: Firings) -> None:
        document_keys = self._keys(keys.Use.EXAMPLE_SAMPLE, firings.latents, firings.documents)
        keep = np.flatnonzero(document_keys <= self._threshold[groups])
        groups = np.concatenate([self._group, groups[keep]])
        firings = self._firings.and_also(firings.at(keep))
        document_keys = np.concatenate([self._document_keys, document_keys[keep]])
        order = self._order(groups, document_keys, firings)  # equal 64-bit keys of one group: never, in practice
        groups, firings, document_keys = groups[order], firings.at(order), document_keys[order]
        first = starts_group(groups) | starts_group(firings.documents)
        groups, firings, document_keys = groups[first], firings.at(first), document_keys[first]
        ranks = rank_in_group(groups)
        last = ranks == self.n - 1
        self._threshold[groups[last]] = document_keys[last]
        kept = ranks < self.n
        self._group, self._firings, self._document_keys = groups[kept], firings.at(kept), document_keys[kept]

    def _order(self, groups: Int64, document_keys: NDArray[np.uint64], firings: Firings) -> Int64:
        """By group, document key, token key. One number with as much of the first two as it holds is sorted, and only what that
        leaves equal, mostly firings of one document, by all three: half the time of sorting everything by three.
        """
        bits = np.uint64(max(len(self._threshold) - 1, 1).bit_length())
        coarse = (groups.astype(np.uint64) << (np.uint64(64) - bits)) | (document_keys >> bits)
        order = np.argsort(coarse)
        first = starts_group(coarse[order])
        places = np.flatnonzero(~(first & np.append(first[1:], True)))
        equal = order[places]
        token_keys = self._keys(keys.Use.EXAMPLE_TOKEN, firings.latents[equal], firings.tokens[equal])
        order[places] = equal[np.lexsort((token_keys, document_keys[equal], groups[equal]))]
        return order

    def _keys(self, use: keys.Use, latents: Int64, ids: Int64) -> NDArray[np.uint64]:
        """One for each (latent, id); where the same stand together, they are drawn once."""
        first = starts_group(latents) | starts_group(ids)
        drawn: NDArray[np.uint64] = keys.words(self.seed, use, latents[first] + self.first_latent, ids[first])
        each: NDArray[np.uint64] = drawn[np.cumsum(first) - 1]
        return each

    def drawn(self, n: int, n_documents: int, shown: Firings) -> tuple[Int64, Firings]:
        """At most n documents of each interval, none shown twice: not those of `shown`, not those of a higher interval.

        Returns the interval of each firing, and the firings, by latent, interval, strongest first. Exact if this sample
        keeps n for every interval plus as many as `shown` has of one latent.
        """
        used = shown.latents * n_documents + shown.documents
        chosen: list[Int64] = [np.zeros(0, dtype=np.int64)]
        intervals = self._group % self.n_intervals
        pairs = self._firings.latents * n_documents + self._firings.documents
        for interval in reversed(range(self.n_intervals)):
            places = np.flatnonzero((intervals == interval) & ~np.isin(pairs, used))
            places = places[rank_in_group(self._firings.latents[places]) < n]
            used = np.concatenate([used, pairs[places]])
            chosen.append(places)
        places = np.concatenate(chosen)
        firings, intervals = self._firings.at(places), intervals[places]
        order = np.lexsort((firings.tokens, -firings.values, intervals, firings.latents))
        return intervals[order], firings.at(order)


def interval_edges(maximum: Float32, n_intervals: int) -> Float64:
    """Edges [latent, n_intervals + 1] of equal steps from 0 to each maximum; the last edge is the maximum itself."""
    edges = maximum.astype(np.float64)[:, None] * np.arange(n_intervals + 1) / n_intervals
    edges[:, -1] = maximum
    return edges


def interval_of(values: Float32, edges: Float64) -> Int64:
    """The interval i with edges[i] < value <= edges[i + 1]; `edges` has one row for each value."""
    index = np.zeros(len(values), dtype=np.int64)
    for edge in range(1, edges.shape[1] - 1):
        index += values > edges[:, edge]
    return index


def histogram(firings: Firings, maximum: Float32, n_bins: int) -> Int64:
    """Counts [latent, bin] over intervals as in `interval_edges`: (low, high], equal width, from 0 to the maximum.

    The bin is found by division and then corrected against the edges, so that it agrees with them to the last bit.
    """
    scale = n_bins / np.maximum(maximum.astype(np.float64), float(np.finfo(np.float32).smallest_subnormal))
    bins = np.clip(np.ceil(firings.values * scale[firings.latents]).astype(np.int64) - 1, 0, n_bins - 1)
    edges = interval_edges(maximum, n_bins)
    bins -= (firings.values <= edges[firings.latents, bins]) & (bins > 0)
    return np.bincount(firings.latents * n_bins + bins, minlength=len(maximum) * n_bins).reshape(len(maximum), n_bins)


def starts_group(sorted_ids: NDArray[Any]) -> Bool:
    """Where a new value begins in an array whose equal values stand together."""
    starts = np.ones(len(sorted_ids), dtype=np.bool_)
    starts[1:] = sorted_ids[1:] != sorted_ids[:-1]
    return starts


def rank_in_group(sorted_ids: NDArray[Any]) -> Int64:
    """Each entry's place within its run of equal values, from 0."""
    places = np.arange(len(sorted_ids))
    return places - np.maximum.accumulate(np.where(starts_group(sorted_ids), places, 0))
