"""Per-latent statistics that may be gathered in any pieces and any order and are always the same bytes. No text, no files.

Three monoids: `Moments` (count, sum, maximum), `TopDocuments` (the strongest distinct documents), `IntervalSample` (documents
drawn uniformly from each activation interval). Each has `add` for firings and `merge` for another of its kind; both are
associative and commutative, ties included, so workers may cut the tokens as they like (law 1). With numba each firing is
looked at once (`statistics_compiled`), a tenth of what sorting them takes; both give the same bytes.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mohole import keys
from mohole.catalogue.layout import LOWEST_EXPONENT, N_EXPONENTS
from mohole.errors import NumericsError
from mohole.kernels import HAS_NUMBA

Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]

_MANTISSA_BITS = 24


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


def documents_of(tokens: Int64, starts: Int64, twins: Int64) -> Int64:
    """For each token the first document with the text of its own.

    Args:
        starts: where each document begins among the tokens, and where the last one ends.
        twins: for each document, the first one with the same text.
    """
    if not HAS_NUMBA:
        return twins[np.searchsorted(starts, tokens, side="right") - 1]
    from mohole.catalogue import statistics_compiled  # numba takes 0.3 s to import

    found = np.empty(len(tokens), dtype=np.int64)
    statistics_compiled.documents_of(tokens, starts, twins, found)
    return found


class _Kept:
    """The n best firings of each group, best first; of which document each is, so that none has two."""

    def __init__(self, n_groups: int, n: int) -> None:
        self.held = np.zeros(n_groups, dtype=np.int64)
        """[group] how many there are; beyond them the other arrays mean nothing."""
        self.values = np.zeros((n_groups, n), dtype=np.float32)
        self.tokens, self.documents = (np.zeros((n_groups, n), dtype=np.int64) for _ in range(2))

    def firings(self) -> tuple[Int64, Firings]:
        """All in order, and the group of each, which also stands for its latent."""
        there = np.arange(self.values.shape[1]) < self.held[:, None]
        groups = np.nonzero(there)[0]
        return groups, Firings(groups, self.values[there], self.tokens[there], self.documents[there])

    def put(self, groups: Int64, firings: Firings, ranks: Int64) -> None:
        """Keep these instead, the first n of each group, by their rank in it."""
        self.held[:] = np.minimum(np.bincount(groups, minlength=len(self.held)), self.values.shape[1])
        best = np.flatnonzero(ranks < self.values.shape[1])
        place = (groups[best], ranks[best])
        self.values[place], self.tokens[place] = firings.values[best], firings.tokens[best]
        self.documents[place] = firings.documents[best]


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
        largest = firings.values.max()
        if not (largest < 2.0**32):
            raise NumericsError(
                f"latent {firings.latents[firings.values.argmax()]}: activation {largest:g}, 2^32 or more"
            )
        if HAS_NUMBA:
            from mohole.catalogue import statistics_compiled

            statistics_compiled.add_moments(
                firings.latents, firings.values, LOWEST_EXPONENT,
                self.counts, self.maximum, self.magnitudes, self._mantissas,
            )  # fmt: skip
            return
        n_latents, values = len(self.counts), firings.values.astype(np.float64)
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
        self._kept = _Kept(n_latents, n)

    @property
    def firings(self) -> Firings:
        """The kept ones, by latent, then strongest first."""
        return self._kept.firings()[1]

    def add(self, firings: Firings) -> None:
        """Offer these. What is weaker than n documents already kept is dropped unsorted: late chunks cost little."""
        kept = self._kept
        if HAS_NUMBA:
            from mohole.catalogue import statistics_compiled

            offered = (firings.latents, firings.values, firings.tokens, firings.documents)
            statistics_compiled.keep_strongest(*offered, kept.held, kept.values, kept.tokens, kept.documents)
            return
        bar = np.where(kept.held == self.n, kept.values.min(1, initial=np.inf), 0.0)
        both = self.firings.and_also(firings.at(np.flatnonzero(firings.values >= bar[firings.latents])))
        both = both.at(np.lexsort((both.tokens, -both.values, both.latents)))
        _, first = np.unique(both.latents * self._n_documents + both.documents, return_index=True)
        both = both.at(np.sort(first))
        kept.put(both.latents, both, rank_in_group(both.latents))

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
        self._kept = _Kept(self.counts.size, n)
        self._keys_kept, self._token_keys_kept = (np.zeros((self.counts.size, n), dtype=np.uint64) for _ in range(2))

    def add(self, firings: Firings) -> None:
        self._add(firings, self.counts)

    def merge(self, other: "IntervalSample") -> None:
        self.counts += other.counts
        self._add(other._drawn()[1], np.zeros_like(self.counts))

    def _add(self, firings: Firings, counts: Int64) -> None:
        kept = self._kept
        if HAS_NUMBA:
            from mohole.catalogue import statistics_compiled

            uses = (np.uint64(int(use) << 56) for use in (keys.Use.EXAMPLE_SAMPLE, keys.Use.EXAMPLE_TOKEN))
            statistics_compiled.draw(
                firings.latents, firings.values, firings.tokens, firings.documents,
                self._edges, self.first_latent, np.uint64(self.seed), *uses,
                counts, kept.held, self._keys_kept, self._token_keys_kept, kept.values, kept.tokens, kept.documents,
            )  # fmt: skip
            return
        groups = firings.latents * self.n_intervals + interval_of(firings.values, self._edges[firings.latents])
        counts += np.bincount(groups, minlength=counts.size).reshape(counts.shape)
        document_keys = self._keys(keys.Use.EXAMPLE_SAMPLE, firings.latents, firings.documents)
        bar = np.where(kept.held == self.n, self._keys_kept.max(1, initial=0), np.iinfo(np.uint64).max)
        near = np.flatnonzero(document_keys <= bar[groups])
        groups_before, before = self._drawn()
        keys_before = self._keys(keys.Use.EXAMPLE_SAMPLE, before.latents, before.documents)
        groups, firings = np.concatenate([groups_before, groups[near]]), before.and_also(firings.at(near))
        document_keys = np.concatenate([keys_before, document_keys[near]])
        order = self._order(groups, document_keys, firings)  # equal 64-bit keys of one group: never, in practice
        groups, firings, document_keys = groups[order], firings.at(order), document_keys[order]
        first = starts_group(groups) | starts_group(firings.documents)
        groups, firings, document_keys = groups[first], firings.at(first), document_keys[first]
        ranks = rank_in_group(groups)
        kept.put(groups, firings, ranks)
        self._keys_kept[groups[ranks < self.n], ranks[ranks < self.n]] = document_keys[ranks < self.n]

    def _drawn(self) -> tuple[Int64, Firings]:
        """The kept ones with their groups, by group, smallest key first."""
        groups, firings = self._kept.firings()
        return groups, replace(firings, latents=groups // self.n_intervals)

    def _order(self, groups: Int64, document_keys: NDArray[np.uint64], firings: Firings) -> Int64:
        """By group, document key, token key. One number with as much of the first two as it holds is sorted, and only what that
        leaves equal, mostly firings of one document, by all three: half the time of sorting everything by three.
        """
        bits = np.uint64(max(self.counts.size - 1, 1).bit_length())
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
        groups, kept = self._drawn()
        intervals = groups % self.n_intervals
        pairs = kept.latents * n_documents + kept.documents
        for interval in reversed(range(self.n_intervals)):
            places = np.flatnonzero((intervals == interval) & ~np.isin(pairs, used))
            places = places[rank_in_group(kept.latents[places]) < n]
            used = np.concatenate([used, pairs[places]])
            chosen.append(places)
        places = np.concatenate(chosen)
        firings, intervals = kept.at(places), intervals[places]
        order = np.lexsort((firings.tokens, -firings.values, intervals, firings.latents))
        return intervals[order], firings.at(order)


def interval_edges(maximum: Float32, n_intervals: int) -> Float64:
    """Edges [latent, n_intervals + 1] of equal steps from 0 to each maximum; the last edge is the maximum itself."""
    edges = maximum.astype(np.float64)[:, None] * np.arange(n_intervals + 1) / n_intervals
    edges[:, -1] = maximum
    return edges


def edges_to(maximum: float, n_intervals: int) -> list[float]:
    """The row of `interval_edges` for one maximum, bit for bit: of one, numpy takes five times as long.

    >>> edges_to(1.0, 4)
    [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    return [*(maximum * i / n_intervals for i in range(n_intervals)), maximum]


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
    if HAS_NUMBA:
        from mohole.catalogue import statistics_compiled

        counts = np.zeros((len(maximum), n_bins), dtype=np.int64)
        statistics_compiled.add_bins(firings.latents, firings.values, maximum.astype(np.float64), scale, counts)
        return counts
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
