"""Is an order a uniform shuffle? Two-sided statistics with known null distributions. No files, no tensors.

Each finding asks how likely so extreme a number is when all N! orders are equally likely, and asks it in both tails: an
order that is too even is as wrong as one that is too clumped. Rows are compared by the rank of their id among the ids
given, so any part of a uniform shuffle (a shard, a prefix) is tested as well as the whole. What chance makes of each number is
in chance.py.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int
from numpy.typing import NDArray

from mohole.store.chance import Finding, Pairs, lag_moments, normal_finding, normal_p, shared_pairs, successors

Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]

MIN_ROWS = 1024
_NEAR = 64  # rows or ids this close are near neighbours: 128 such pairs by chance, enough to notice that none is left
_MAX_BLOCKS = 1024


@dataclass(frozen=True, slots=True)
class Battery:
    """All findings on one order."""

    n_rows: int
    findings: tuple[Finding, ...]

    def suspicious(self, level: float = 1e-6) -> tuple[Finding, ...]:
        """The findings that chance does not explain; empty for a good shuffle.

        Bonferroni: a finding is named when p_value < level / number of findings. So a uniform shuffle has any finding
        named with probability at most `level`, however the statistics depend on each other.
        """
        return tuple(finding for finding in self.findings if finding.p_value < level / len(self.findings))

    def __getitem__(self, name: str) -> Finding:
        """The finding of that name.

        Raises:
            KeyError: it was not computed; names those that were.
        """
        for finding in self.findings:
            if finding.name == name:
                return finding
        raise KeyError(f"{name}: no such finding; there are: {', '.join(finding.name for finding in self.findings)}")


def uniformity(
    tokens: Int[np.ndarray, " row"],
    *,
    documents: Int[np.ndarray, " row"] | None = None,
    shard_starts: Int[np.ndarray, " shard"] | None = None,
    source_starts: Int[np.ndarray, " source"] | None = None,
    batch_rows: int = 4096,
) -> Battery:
    """Every statistic that the arguments allow. Half a second per million rows; ten copies of the ids in memory.

    A count is left out when it cannot vary (one shard, one document), when chance expects it below 20, or when it has
    fewer than about 8 degrees of freedom (two shards of two sources), as exactly even is then nothing rare.

    Args:
        tokens: the id of each row, in the shuffled order. Ids that are near each other were near before the shuffle.
        documents: the document of each row.
        shard_starts: the row at which each output shard begins.
        source_starts: the smallest id of each input shard. Without it, 64 equal blocks of ids stand for them.
        batch_rows: rows per training batch, within which documents should collide no more and no less than by chance.

    Raises:
        ValueError: fewer than 1024 rows, an id twice, or starts that are not ascending.
    """
    n = len(tokens)
    if n < MIN_ROWS:
        raise ValueError(f"{n} rows: too few to judge an order; give at least {MIN_ROWS}")
    place, rank = _places_and_ranks(tokens)
    findings = [*_blocks(rank), _stays(rank), *_displacement(rank), *_neighbours(rank, place)]
    findings += [*_lags(rank, "rows"), *_lags(place, "ids")]
    if shard_starts is not None:
        shard = _class_of(np.arange(n), shard_starts, "shard_starts")
        source = _block_of(rank, 64) if source_starts is None else _class_of(tokens, source_starts, "source_starts")
        findings += _shards(shard, source)
    if documents is not None:
        findings += _documents(documents, batch_rows)
    return Battery(n, tuple(finding for finding in findings if finding is not None))


# --- Rows, ranks, classes


def _places_and_ranks(tokens: Int[np.ndarray, " row"]) -> tuple[Int64, Int64]:
    """Where each id went, in the order of the ids; and which id came, in the order of the rows."""
    label = _small_labels(tokens)
    present = np.bincount(label)
    if present.max() > 1:
        token = tokens[label == present.argmax()][0]
        raise ValueError(f"token {token} stands in {present.max()} rows; an order has each id once")
    rank = (np.cumsum(present) - 1)[label]
    place = np.empty_like(rank)
    place[rank] = np.arange(len(rank))
    return place, rank


def _small_labels(values: Int[np.ndarray, " row"]) -> Int64:
    """The same values in the same order as numbers from 0. Numbered by a sort only where they are far apart: it is slow."""
    low, high = int(values.min()), int(values.max())
    if high - low < 4 * len(values):
        return (values - low).astype(np.int64, copy=False)
    return np.unique(values, return_inverse=True)[1].astype(np.int64, copy=False)


def _class_of(values: Int[np.ndarray, " row"], starts: Int[np.ndarray, " start"], name: str) -> Int64:
    if (np.diff(starts) <= 0).any():
        raise ValueError(f"{name}: not strictly ascending")
    return np.searchsorted(starts, values, side="right").astype(np.int64, copy=False)


def _block_of(rank: Int64, n_blocks: int) -> Int64:
    return rank * n_blocks // len(rank)


def _pairs_in(counts: Int64) -> int:
    return int((counts * (counts - 1) // 2).sum())


def _counts(labels: Int64) -> Int64:
    """How often each label occurs, whatever the labels are. A sort: there may be more possible labels than rows."""
    ends = np.flatnonzero(np.diff(np.sort(labels), append=labels.max() + 1))
    return np.diff(ends, prepend=-1)


# --- The findings


def _blocks(rank: Int64) -> list[Finding | None]:
    """Pairs of rows from one source block that share a target block, on grids of 4 x 4 up to about 4 rows per cell.

    With g equal blocks this is the chi-square of the g x g table, in other units: chi^2 = 2 g^2 pairs / N + g^2 - N. Its
    variance over orders is a little below that of chi-square with (g - 1)^2 degrees of freedom, since the margins are
    fixed (Haldane 1940). A fault of 16 even blocks vanishes among the cells of a 64 x 64 grid, so every scale is looked
    at. Even slices of blocks whose edges are on no grid show from a dozen blocks on; fewer need the starts of shards and
    sources.
    """
    n = len(rank)
    n_blocks = min(_MAX_BLOCKS, 2 ** int(math.log2(n / 4) / 2))
    target = _block_of(np.arange(n), n_blocks)
    table = np.bincount(target * n_blocks + _block_of(rank, n_blocks), minlength=n_blocks**2).reshape(n_blocks, -1)
    findings = []
    while n_blocks >= 4:
        sides = Pairs.same_class(table.sum(0))
        catches = (
            "high: source blocks stay together, short-range mixing; low: equal slices of every block in every output"
        )
        findings.append(shared_pairs(f"blocks {n_blocks} x {n_blocks}", _pairs_in(table), sides, sides, catches))
        n_blocks //= 2
        table = table.reshape(n_blocks, 2, n_blocks, 2).sum((1, 3))
    return findings


def _stays(rank: Int64) -> Finding:
    """Rows whose target block is their source block, of 16: a sum over rows of c(place, rank).

        variance = (sum n^2 - 2 sum n^3 / N + (sum n^2)^2 / N^2) / (N - 1)          for blocks of n rows

    Source: Hoeffding 1951, "A combinatorial central limit theorem".
    """
    n = len(rank)
    block = _block_of(np.arange(n), 16)
    sizes = np.bincount(block).astype(np.float64)
    squares, thirds = float((sizes**2).sum()), float((sizes**3).sum())
    variance = (squares - 2 * thirds / n + squares**2 / n**2) / (n - 1)
    catches = "high: a buffer, no global mixing; low: rows sent anywhere but home"
    return normal_finding("rows that stay", int((block == _block_of(rank, 16)).sum()), squares / n, variance, catches)


def _neighbours(rank: Int64, place: Int64) -> list[Finding | None]:
    """What becomes of neighbours: successors kept, near ones kept, and which of two comes first.

    Ascents of an order are Eulerian numbers: mean (N - 1) / 2, variance (N + 1) / 12. The ascents of the inverse are ids
    that come before the next id: N less the rising sequences, of which r riffles of a pack leave at most 2^r (Bayer and
    Diaconis 1992, "Trailing the dovetail shuffle to its lair").
    """
    n = len(rank)
    step, stride = np.diff(rank), np.diff(place)
    line, near = Pairs.within(n, 1), Pairs.within(n, _NEAR)
    middle, spread = (n - 1) / 2, (n + 1) / 12
    sorts = "high: sorted or merged runs, a riffle; low: reversed runs"
    return [
        successors("successors", int((step == 1).sum()), n, "high: rows left, moved or rotated in one piece"),
        successors("predecessors", int((step == -1).sum()), n, "high: runs reversed"),
        shared_pairs(
            "near ids in neighbour rows",
            int((np.abs(step) <= _NEAR).sum()),
            near,
            line,
            "high: a small buffer, sorted batches, a riffle; low: neighbours driven apart",
        ),
        shared_pairs(
            "neighbour ids in near rows",
            int((np.abs(stride) <= _NEAR).sum()),
            line,
            near,
            "high: a small buffer, whole runs moved; low: neighbours dealt in turn",
        ),
        normal_finding("ascending rows", int((step > 0).sum()), middle, spread, sorts),
        normal_finding("ascending ids", int((stride > 0).sum()), middle, spread, sorts),
    ]


def _lags(values: Int64, of: str) -> list[Finding | None]:
    """Serial correlation at lag 1, and the strongest over all lags from 2 to below N / 2.

    The strongest of M normal numbers, taken as independent: P(max |z| > x) = 1 - erf(x / sqrt 2)^M. Its z is the normal
    number that is exceeded as rarely; its expectation is the median. Simulated: its sd is 1.00 at 16 384 rows (3000
    orders) and 1.04 at 1024 (20 000), where the low tail holds twice the stated 1e-3 and the high tail what is stated.
    """
    from scipy.special import ndtri  # type: ignore[import-untyped]

    mean, variance = lag_moments(len(values))
    correlation = _serial_correlations(values)
    z = (correlation[1 : (len(values) + 1) // 2] - mean) / math.sqrt(variance)
    others = np.abs(z[1:])
    lag = int(others.argmax()) + 2
    log_below = len(others) * math.log1p(-normal_p(float(others.max())))
    above = max(-math.expm1(log_below), 5e-324)  # the least number above 0, so that z stays finite: 38
    median = -float(ndtri(-math.expm1(math.log(0.5) / len(others)) / 2)) * math.sqrt(variance)
    return [
        Finding(
            f"lag 1 of {of}",
            float(correlation[1]),
            mean,
            float(z[0]),
            normal_p(float(z[0])),
            "high: neighbours stay close; low: neighbours driven apart",
        ),
        Finding(
            f"strongest lag of {of}",
            abs(float(correlation[lag])),
            median,
            -float(ndtri(above)),
            min(1.0, 2 * min(above, math.exp(log_below))),
            "high: outputs permuted alike (rows), rows dealt to outputs in turn (ids); low: correlations evened out",
            f"lag {lag}",
        ),
    ]


def _serial_correlations(values: Int64) -> Float64:
    """Circular, at every lag, by a Fourier transform. `values` are 0..n-1 in some order."""
    n = len(values)
    spectrum = np.fft.rfft((values - (n - 1) / 2) / math.sqrt(n * (n * n - 1) / 12))
    return np.fft.irfft(spectrum.real**2 + spectrum.imag**2, n)


def _displacement(rank: Int64) -> list[Finding | None]:
    """How far rows moved from their place among the ids.

    The mean distance is Spearman's footrule: mean (N^2 - 1) / 3N, variance (N + 1) (2 N^2 + 7) / 45 N^2 (Diaconis and
    Graham 1977, "Spearman's footrule as a measure of disarray"). The rank correlation has mean 0, variance 1 / (N - 1).
    """
    n = len(rank)
    place = np.arange(n)
    moved = float(np.abs(rank - place).mean())
    middle = (n - 1) / 2
    drift = float(((rank - middle) * (place - middle)).sum()) / (n * (n * n - 1) / 12)
    return [
        normal_finding(
            "mean displacement",
            moved,
            (n * n - 1) / (3 * n),
            (n + 1) * (2 * n * n + 7) / (45 * n * n),
            "low: a buffer, no global mixing; high: halves or ends swapped",
        ),
        normal_finding(
            "rank correlation", drift, 0.0, 1 / (n - 1), "high: early rows stay early; low: early rows become late"
        ),
    ]


def _shards(shard: Int64, source: Int64) -> list[Finding | None]:
    """Output shards against source shards; and rows at the same place of two output shards, whose sources should not agree.

    The second is what gives away reducers that all use one permutation: they put row j of every shard at the same place.
    """
    firsts = np.flatnonzero(np.diff(shard, prepend=-1))
    sizes = np.diff(firsts, append=len(shard))
    offset = np.arange(len(shard)) - np.repeat(firsts, sizes)
    n_sources = int(source.max()) + 1
    sources = Pairs.same_class(np.bincount(source))
    return [
        shared_pairs(
            "sources in output shards",
            _pairs_in(_counts(shard * n_sources + source)),
            sources,
            Pairs.same_class(sizes),
            "high: source shards stay together; low: equal slices of every source in every output",
        ),
        shared_pairs(
            "sources at the same place of shards",
            _pairs_in(_counts(offset * n_sources + source)),
            sources,
            Pairs.same_class(np.bincount(offset)),
            "high: every output shard permuted alike; low: sources dealt in turn",
        ),
    ]


def _documents(documents: Int[np.ndarray, " row"], batch_rows: int) -> list[Finding | None]:
    """Pairs of rows of one document that share a batch (the birthday count), or stand next to each other."""
    n = len(documents)
    document = _small_labels(documents)
    batch = np.arange(n) // batch_rows
    same = Pairs.same_class(np.bincount(document))
    return [
        shared_pairs(
            "document collisions in batches",
            _pairs_in(_counts(batch * (document.max() + 1) + document)),
            same,
            Pairs.same_class(np.bincount(batch)),
            "high: documents stay together; low: documents spread evenly",
        ),
        shared_pairs(
            "documents in neighbour rows",
            int((document[1:] == document[:-1]).sum()),
            same,
            Pairs.within(n, 1),
            "high: documents stay together, short-range mixing; low: documents driven apart",
        ),
    ]
