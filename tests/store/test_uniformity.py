"""The battery: silent on uniform orders, whoever made them, and each known fault of a shuffle found by its own statistic."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
from scipy import stats

from mohole import keys
from mohole.store.chance import Pairs, lag_moments, pearson3_p, shared_moments, successors
from mohole.store.uniformity import Battery, uniformity

N, BUCKETS, PER_DOCUMENT = 16_384, 16, 64
SLICE = N // BUCKETS
EVEN_STARTS = np.arange(0, N, SLICE)
EXACT = ("successors", "predecessors")  # of mean 1: not near any continuous distribution, tested against the exact one


@dataclass(frozen=True)
class Order:
    tokens: np.ndarray
    shard_starts: np.ndarray


def judge(order: Order) -> Battery:
    return uniformity(
        order.tokens,
        documents=order.tokens // PER_DOCUMENT,
        shard_starts=order.shard_starts,
        source_starts=EVEN_STARTS,
        batch_rows=512,
    )


# --- Orders


def from_generator(seed: int) -> Order:
    rng = np.random.default_rng(seed)
    return Order(rng.permutation(N), np.concatenate([[0], rng.multinomial(N, [1 / BUCKETS] * BUCKETS).cumsum()[:-1]]))


def from_keys(seed: int) -> Order:
    """The shuffle of this package: by key; a shard is a range of keys."""
    key = keys.row_keys(seed, *np.divmod(np.arange(N), PER_DOCUMENT))
    order = np.argsort(key)
    return Order(order, np.searchsorted(key[order] >> np.uint64(60), np.arange(BUCKETS, dtype=np.uint64)))


def equal_slices(rng: np.random.Generator) -> Order:
    """Every source is permuted and cut into equal slices, one to each output; every output is permuted afresh."""
    slices = rng.permuted(np.arange(N).reshape(BUCKETS, SLICE), axis=1).reshape(BUCKETS, BUCKETS, -1)
    return Order(rng.permuted(slices.swapaxes(0, 1).reshape(BUCKETS, SLICE), axis=1).ravel(), EVEN_STARTS)


def ray_data(rng: np.random.Generator) -> Order:
    """Equal slices, and one permutation for all outputs: what Ray Data 2.60 does."""
    slices = rng.permuted(np.arange(N).reshape(BUCKETS, SLICE), axis=1).reshape(BUCKETS, BUCKETS, -1)
    return Order(slices.swapaxes(0, 1).reshape(BUCKETS, SLICE)[:, rng.permutation(SLICE)].ravel(), EVEN_STARTS)


def one_permutation(rng: np.random.Generator) -> Order:
    """Rows are dealt to outputs by chance, and keep the order they came in; one permutation for all outputs."""
    outputs = np.sort(rng.permutation(N).reshape(BUCKETS, SLICE), axis=1)
    return Order(outputs[:, rng.permutation(SLICE)].ravel(), EVEN_STARTS)


def dealt_in_turn(rng: np.random.Generator) -> Order:
    """Row i goes to output i mod 16; every output is permuted afresh."""
    return Order(rng.permuted(np.arange(N).reshape(-1, BUCKETS).T, axis=1).ravel(), EVEN_STARTS)


def buffer(rng: np.random.Generator, capacity: int = N // 8) -> Order:
    """A reservoir of rows: each next row replaces a random one, which comes out."""
    held, out = list(range(capacity)), []
    for token, slot in zip(range(capacity, N), rng.integers(0, capacity, N - capacity).tolist(), strict=True):
        out.append(held[slot])
        held[slot] = token
    return Order(np.array(out + rng.permutation(held).tolist()), EVEN_STARTS)


def small_buffer(rng: np.random.Generator) -> Order:
    return buffer(rng, 64)


def blocks_then_within(rng: np.random.Generator) -> Order:
    """The blocks in random order, the rows of each in random order."""
    return Order(rng.permuted(rng.permutation(np.arange(N).reshape(-1, 64)), axis=1).ravel(), EVEN_STARTS)


def blocks_only(rng: np.random.Generator) -> Order:
    return Order(rng.permutation(np.arange(N).reshape(-1, 64)).ravel(), EVEN_STARTS)


def rotated(rng: np.random.Generator) -> Order:
    return Order(np.roll(np.arange(N), int(rng.integers(1, N))), EVEN_STARTS)


def reversed_rows(rng: np.random.Generator) -> Order:
    return Order(np.arange(N)[::-1].copy(), EVEN_STARTS)


def unshuffled(rng: np.random.Generator) -> Order:
    return Order(np.arange(N), EVEN_STARTS)


def sorted_batches(rng: np.random.Generator) -> Order:
    """Uniform but for the order within batches of 512."""
    return Order(np.sort(rng.permutation(N).reshape(-1, 512), axis=1).ravel(), EVEN_STARTS)


def riffles(rng: np.random.Generator, n: int = 3) -> Order:
    tokens = np.arange(N)
    for _ in range(n):
        tokens = tokens[np.argsort(np.argsort(rng.integers(0, 2, N), kind="stable"))]
    return Order(tokens, EVEN_STARTS)


def seven_riffles(rng: np.random.Generator) -> Order:
    return riffles(rng, 7)


def documents_whole(rng: np.random.Generator) -> Order:
    """Documents in random order, each in one piece, its rows permuted."""
    return Order(rng.permuted(rng.permutation(np.arange(N).reshape(-1, PER_DOCUMENT)), axis=1).ravel(), EVEN_STARTS)


def documents_spread(rng: np.random.Generator) -> Order:
    """Every batch has the same number of rows of every document."""
    slices = rng.permuted(np.arange(N).reshape(-1, PER_DOCUMENT), axis=1).reshape(N // PER_DOCUMENT, -1, 2)
    return Order(rng.permuted(slices.swapaxes(0, 1).reshape(-1, 512), axis=1).ravel(), EVEN_STARTS)


def halves_in_turn(rng: np.random.Generator) -> Order:
    """Every other row comes from the first half of the ids."""
    return Order(rng.permuted(np.arange(N).reshape(2, -1), axis=1).T.ravel(), EVEN_STARTS)


def odd_after_even(rng: np.random.Generator) -> Order:
    """The first half of the rows are the even ids."""
    return Order(rng.permuted(np.arange(N).reshape(-1, 2).T, axis=1).ravel(), EVEN_STARTS)


def nearly_home(rng: np.random.Generator) -> Order:
    """A uniform order, but one row in three stays where it was."""
    tokens, moved = np.arange(N), np.flatnonzero(rng.random(N) < 2 / 3)
    tokens[moved] = rng.permutation(moved)
    return Order(tokens, EVEN_STARTS)


def never_home(rng: np.random.Generator) -> Order:
    """Rows go anywhere but back into their own sixteenth: a row that would trades places, until there is none."""
    tokens = rng.permutation(N)
    home = tokens // SLICE == np.arange(N) // SLICE
    while home.any():
        rows = np.flatnonzero(home)
        for row, other in zip(rows.tolist(), rng.integers(0, N, len(rows)).tolist(), strict=True):
            tokens[[row, other]] = tokens[[other, row]]
        home = tokens // SLICE == np.arange(N) // SLICE
    return Order(tokens, EVEN_STARTS)


# --- The null distributions are the true ones


def related(n: int, kind: str) -> tuple[np.ndarray, Pairs]:
    """A set of pairs of n rows as a matrix, and as the sums."""
    row = np.arange(n)
    if kind.startswith("within"):
        distance = int(kind[-1])
        matrix = (np.abs(row[:, None] - row) <= distance) & (row[:, None] != row)
        return matrix, Pairs.within(n, distance)
    label = np.repeat(row[: len(kind)], [int(size) for size in kind])
    return (label[:, None] == label) & (row[:, None] != row), Pairs.same_class(np.bincount(label))


@pytest.mark.parametrize("before", ["within1", "within2", "322", "4111", "7"])
@pytest.mark.parametrize("after", ["within1", "within2", "421"])
def test_shared_pairs_have_the_mean_and_variance_of_all_orders(before: str, after: str) -> None:
    (first, first_sums), (second, second_sums) = related(7, before), related(7, after)
    orders = np.array(list(itertools.permutations(range(7))))
    counts = (first[orders[:, :, None], orders[:, None, :]] & second).sum((1, 2)) / 2
    mean, variance, _ = shared_moments(first_sums, second_sums)
    assert mean == pytest.approx(counts.mean(), rel=1e-12)
    assert variance == pytest.approx(counts.var(), abs=1e-9)


@pytest.mark.parametrize("kind", ["within1", "within2", "within3", "322", "7"])
def test_pairs_are_summed_up_as_their_matrix_says(kind: str) -> None:
    matrix, sums = related(7, kind)
    degree = matrix.sum(1)
    assert (sums.pairs, sums.wedges) == (degree.sum() // 2, (degree * (degree - 1)).sum())
    if kind.startswith("within"):
        assert sums.cubes == np.trace(np.linalg.matrix_power(matrix.astype(float), 3))


@pytest.mark.parametrize("lag", [1, 2, 3])
def test_serial_correlation_has_the_mean_and_variance_of_all_orders(lag: int) -> None:
    orders = np.array(list(itertools.permutations(range(8)))) - 3.5
    correlation = (orders * np.roll(orders, lag, axis=1)).sum(1) / (orders[0] ** 2).sum()
    assert lag_moments(8) == pytest.approx((correlation.mean(), correlation.var()), rel=1e-12)


def test_successors_have_the_distribution_of_all_orders() -> None:
    counts = (np.diff(np.array(list(itertools.permutations(range(9))))) == 1).sum(1)
    for k in range(5):
        finding = successors("successors", k, 9, "")
        both = min(1.0, 2 * min((counts >= k).mean(), (counts <= k).mean()))
        assert finding.p_value == pytest.approx(both, abs=2e-4)  # m! / e is not quite a whole number of derangements
    assert finding.expected == pytest.approx(counts.mean(), rel=1e-12)
    assert (4 - finding.expected) / finding.z == pytest.approx(counts.std(), rel=1e-12)


def test_pairs_on_a_grid_are_the_chi_square_of_its_table() -> None:
    order = from_generator(1)
    table = np.histogram2d(np.arange(N), order.tokens, bins=16, range=[[0, N], [0, N]])[0]
    chi2 = stats.contingency.chi2_contingency(table)
    finding = judge(order)["blocks 16 x 16"]
    assert 2 * 16**2 * finding.observed / N + 16**2 - N == pytest.approx(chi2.statistic, rel=1e-9)
    assert finding.p_value == pytest.approx(2 * min(chi2.pvalue, 1 - chi2.pvalue), rel=0.02)


@pytest.mark.parametrize(("before", "after"), [([64] * 16, [64] * 16), ([256] * 4, [256] * 4), ([8] * 128, [32] * 32)])
def test_the_tails_of_a_pair_count_are_as_thin_as_stated(before: list[int], after: list[int]) -> None:
    """Full cells, few degrees of freedom, and sparse cells: of 10 000 orders, 20 lie beyond each 500th."""
    sides = [np.repeat(np.arange(len(sizes)), sizes) for sizes in (before, after)]
    moments = shared_moments(*(Pairs.same_class(np.array(sizes)) for sizes in (before, after)))
    rng, counts = np.random.default_rng(0), []
    for _ in range(10):
        orders = rng.permuted(np.tile(sides[0], (1000, 1)), axis=1)
        cells = (np.arange(1000)[:, None] * len(before) + orders) * len(after) + sides[1]
        table = np.bincount(cells.ravel(), minlength=1000 * len(before) * len(after)).reshape(1000, -1)
        counts.append((table * (table - 1) // 2).sum(1))
    z = (np.concatenate(counts) - moments[0]) / math.sqrt(moments[1])
    p_values = np.array([pearson3_p(float(value), moments[2]) for value in z])
    for tail in (p_values[z < 0], p_values[z > 0]):
        assert abs((tail < 4e-3).sum() - 20) < 4 * math.sqrt(20)


# --- A uniform order is let through


@pytest.fixture(scope="module", params=[from_generator, from_keys])
def uniform_orders(request: pytest.FixtureRequest) -> list[Battery]:
    return [judge(request.param(seed)) for seed in range(200)]


def test_p_values_of_uniform_orders_are_uniform(uniform_orders: list[Battery]) -> None:
    """And z has mean 0 and sd 1. Bonferroni over the 20 statistics; the seeds are fixed, so it passes always or never."""
    names = [finding.name for finding in uniform_orders[0].findings if finding.name not in EXACT]
    assert len(names) == 20
    for name in names:
        p_values, z = np.array([(battery[name].p_value, battery[name].z) for battery in uniform_orders]).T
        assert stats.kstest(p_values, "uniform").pvalue > 0.01 / len(names), name
        assert abs(z.mean()) < 3.5 / math.sqrt(len(z)), name
        assert abs(z.std() - 1) < 3.5 * math.sqrt((max(stats.kurtosis(z), 0) + 2) / (4 * len(z))), name


@pytest.mark.parametrize("name", EXACT)
def test_uniform_orders_keep_one_successor_on_average(uniform_orders: list[Battery], name: str) -> None:
    counts = np.bincount([int(battery[name].observed) for battery in uniform_orders], minlength=5)
    chances = stats.poisson(1).pmf(np.arange(4))  # N is large: the exact one differs in the fifth digit
    observed = [*counts[:4], counts[4:].sum()]
    assert stats.chisquare(observed, np.array([*chances, 1 - chances.sum()]) * len(uniform_orders)).pvalue > 0.005


def test_uniform_orders_are_not_suspicious(uniform_orders: list[Battery]) -> None:
    assert not any(battery.suspicious() for battery in uniform_orders)
    alarms = sum(bool(battery.suspicious(0.05)) for battery in uniform_orders)
    assert alarms <= 0.05 * len(uniform_orders) + 3.5 * math.sqrt(0.05 * 0.95 * len(uniform_orders))


def test_a_prefix_and_a_shard_of_a_uniform_order_are_uniform_orders() -> None:
    order = from_keys(1)
    for part in (order.tokens[:2000], order.tokens[order.shard_starts[8] : order.shard_starts[12]]):
        assert not uniformity(part, documents=part // PER_DOCUMENT, batch_rows=100).suspicious(0.01)


# --- A fault is caught, by the statistic that is there for it

Fault = Callable[[np.random.Generator], Order]
CAUGHT_BY: list[tuple[Fault, str, str]] = [
    (equal_slices, "sources in output shards", "low"),
    (equal_slices, "blocks 16 x 16", "low"),
    (ray_data, "sources in output shards", "low"),
    (ray_data, "sources at the same place of shards", "high"),
    (one_permutation, "sources at the same place of shards", "high"),
    (one_permutation, "strongest lag of rows", "high"),
    (dealt_in_turn, "strongest lag of ids", "high"),
    (dealt_in_turn, "neighbour ids in near rows", "low"),
    (buffer, "mean displacement", "low"),
    (buffer, "rank correlation", "high"),
    (buffer, "rows that stay", "high"),
    (small_buffer, "near ids in neighbour rows", "high"),
    (small_buffer, "neighbour ids in near rows", "high"),
    (blocks_then_within, "blocks 64 x 64", "high"),
    (blocks_then_within, "lag 1 of rows", "high"),
    (blocks_only, "successors", "high"),
    (rotated, "successors", "high"),
    (reversed_rows, "predecessors", "high"),
    (reversed_rows, "rank correlation", "low"),
    (reversed_rows, "mean displacement", "high"),
    (reversed_rows, "ascending rows", "low"),
    (unshuffled, "rows that stay", "high"),
    (sorted_batches, "ascending rows", "high"),
    (riffles, "ascending ids", "high"),
    (seven_riffles, "ascending ids", "high"),
    (documents_whole, "document collisions in batches", "high"),
    (documents_whole, "documents in neighbour rows", "high"),
    (documents_spread, "document collisions in batches", "low"),
    (halves_in_turn, "lag 1 of rows", "low"),
    (halves_in_turn, "documents in neighbour rows", "low"),
    (halves_in_turn, "near ids in neighbour rows", "low"),
    (odd_after_even, "lag 1 of ids", "low"),
    (odd_after_even, "neighbour ids in near rows", "low"),
    (nearly_home, "rows that stay", "high"),
    (never_home, "rows that stay", "low"),
]


@pytest.mark.parametrize(("fault", "name", "tail"), CAUGHT_BY)
def test_a_fault_is_caught_by_the_statistic_for_it(fault: Fault, name: str, tail: str) -> None:
    finding = judge(fault(np.random.default_rng(3)))
    assert finding[name] in finding.suspicious(1e-6)
    assert (finding[name].z > 0) == (tail == "high")
    assert f"{tail}: " in finding[name].catches


def test_even_slices_look_better_than_chance_and_nothing_else_gives_them_away() -> None:
    """A one-sided chi-square, high tail, passes them with the best mark there is; so does every other statistic."""
    for seed in range(5):
        battery = judge(equal_slices(np.random.default_rng(seed)))
        caught = battery.suspicious()
        assert {finding.name for finding in caught} >= {"sources in output shards", "blocks 16 x 16"}
        assert all(
            finding.name.startswith("blocks") or finding.name == "sources in output shards" for finding in caught
        )
        assert all(finding.z < 0 for finding in caught)
        pairs = N // BUCKETS**2 * (N // BUCKETS**2 - 1) // 2
        assert battery["blocks 16 x 16"].observed == pairs * BUCKETS**2  # every cell alike: chi-square is 0


@pytest.mark.parametrize("fault", [equal_slices, ray_data, one_permutation, dealt_in_turn])
def test_faults_of_outputs_are_caught_without_knowing_the_outputs(fault: Fault) -> None:
    assert uniformity(fault(np.random.default_rng(3)).tokens).suspicious()


@pytest.mark.parametrize(("fault", "of", "step"), [(one_permutation, "rows", SLICE), (dealt_in_turn, "ids", BUCKETS)])
def test_the_strongest_lag_says_where(fault: Fault, of: str, step: int) -> None:
    where = judge(fault(np.random.default_rng(3)))[f"strongest lag of {of}"].where
    assert int(where.removeprefix("lag ")) % step == 0


# --- What it takes and gives


def test_only_the_order_of_ids_matters() -> None:
    order, spread = from_generator(0), np.sort(np.random.default_rng(0).integers(0, 2**60, N))
    assert uniformity(spread[order.tokens]) == uniformity(order.tokens) == uniformity(order.tokens * 3 - 1000)


def test_only_which_rows_share_a_document_matters() -> None:
    order = from_generator(0)
    names = np.random.default_rng(0).permutation(2**40 + np.arange(N // PER_DOCUMENT) * 2**20)
    renamed = replace_documents(order, names[order.tokens // PER_DOCUMENT])
    assert renamed.findings[-2:] == judge(order).findings[-2:]


def replace_documents(order: Order, documents: np.ndarray) -> Battery:
    return uniformity(order.tokens, documents=documents, batch_rows=512)


def test_counts_that_cannot_vary_or_are_too_few_are_left_out() -> None:
    tokens = from_generator(0).tokens
    names = {finding.name for finding in uniformity(tokens).findings}
    one, two = np.array([0]), np.array([0, N // 2])
    for battery in (
        uniformity(tokens, documents=np.zeros(N, np.int64), shard_starts=one),
        uniformity(tokens, documents=tokens, shard_starts=one),
        uniformity(tokens, shard_starts=two, source_starts=one),
    ):
        assert {finding.name for finding in battery.findings} == names
    few = uniformity(tokens, shard_starts=two, source_starts=two)
    assert {finding.name for finding in few.findings} == names | {"sources at the same place of shards"}


def test_bonferroni_divides_the_level_among_the_findings() -> None:
    battery = uniformity(from_generator(0).tokens)
    worst = min(battery.findings, key=lambda finding: finding.p_value)
    level = worst.p_value * len(battery.findings)
    assert battery.suspicious(level * 1.001) == (worst,)
    assert battery.suspicious(level * 0.999) == ()
    doubled = replace(battery, findings=battery.findings * 2)
    assert doubled.suspicious(level * 1.001) == ()


def test_a_finding_is_had_by_name_and_an_unknown_name_is_told_the_others() -> None:
    battery = uniformity(from_generator(0).tokens)
    assert battery["successors"].name == "successors"
    with pytest.raises(KeyError, match="successor: no such finding; there are: blocks 64 x 64, "):
        battery["successor"]


def test_what_is_no_order_is_refused() -> None:
    tokens = from_generator(0).tokens
    with pytest.raises(ValueError, match="1000 rows: too few to judge an order; give at least 1024"):
        uniformity(tokens[:1000])
    with pytest.raises(ValueError, match=f"token {tokens[5]} stands in 2 rows"):
        uniformity(np.concatenate([tokens, tokens[5:6]]))
    with pytest.raises(ValueError, match="shard_starts: not strictly ascending"):
        uniformity(tokens, shard_starts=np.array([0, 500, 500]))
    with pytest.raises(ValueError, match="source_starts: not strictly ascending"):
        uniformity(tokens, shard_starts=EVEN_STARTS, source_starts=np.array([9, 0]))
