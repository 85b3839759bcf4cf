"""Forecasts: time and money by hand, from the numbers that the plan gives."""

import pytest

from mohole.storage import Traffic
from mohole.store.forecast import Prices, forecast_rows
from mohole.store.plan import Limits

MIB = 1 << 20
TERABYTE, GB = 10**12, 10**9


def test_time_is_the_longer_way_on_the_hosts_that_have_a_task() -> None:
    prices = Prices(hosts=200, gbps=2.5)
    assert prices.seconds(Traffic(bytes_read=TERABYTE, bytes_written=TERABYTE // 2), 16) == pytest.approx(25)
    assert prices.seconds(Traffic(bytes_read=0, bytes_written=TERABYTE), 1000) == pytest.approx(2)


def test_money_is_for_requests_and_long_reads_and_writes_are_several() -> None:
    prices = Prices(get_dollars=1.0, put_dollars=10.0)
    short = Traffic(bytes_read=3000, bytes_written=2 * MIB, n_reads=3_000_000, n_writes=2_000_000)
    assert prices.dollars(short, 1000) == pytest.approx(3 + 20)
    # a million reads of 40 MiB: three ranges of 16 MiB each; two million writes of 64 MiB: two parts, a begin and an end
    long = Traffic(bytes_read=40 * MIB * 10**6, bytes_written=64 * MIB * 2 * 10**6, n_reads=10**6, n_writes=2 * 10**6)
    assert prices.dollars(long, 40 * MIB) == pytest.approx(1 + 2.5 + 10 * 8)


def test_a_terabyte_in_one_pass_by_hand() -> None:
    n_rows, row_bytes = TERABYTE // 16_400, 16_384
    plan = forecast_rows(
        n_rows, row_bytes, ("resid_post.0",), n_runs=21, limits=Limits(64 * GB, 8 * 10**6), loader_bytes=64 * GB, stored=True,
        levels=None, prices=Prices(hosts=200, gbps=2.5),
    )  # fmt: skip
    harvest, shuffle, loader = plan.steps
    assert harvest.traffic.n_writes == 21
    assert harvest.traffic.bytes_written == pytest.approx(TERABYTE, rel=1e-4)
    assert (shuffle.n_piles, shuffle.traffic.n_reads) == (16, 16 * 21 * 4)
    assert shuffle.traffic.bytes_read == pytest.approx(TERABYTE, rel=1e-3)
    assert loader.traffic.bytes_read == pytest.approx(TERABYTE, rel=1e-3)
    # two terabytes read in ranges of 16 MiB, two written in parts of 32 MiB
    assert plan.dollars == pytest.approx(2e12 / (16 * MIB) * 0.4e-6 + 2e12 / (32 * MIB) * 5e-6, rel=0.02)
