"""Rows as bytes: bfloat16 is torch's to the bit, float16 refuses what it cannot hold, int8 keeps every dimension's digits."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mohole.errors import ArtifactError, NumericsError
from mohole.store.columns import ROW_TYPES, RowFormat, RowType, calibrated_scales


def bfloat16(values: np.ndarray) -> np.ndarray:
    row_format = RowFormat("bfloat16", values.shape[1])
    stored, n_clipped = row_format.encode(values)
    assert n_clipped == 0
    assert stored.shape == (len(values), row_format.row_bytes)
    return stored.view("<u2")


@given(hnp.arrays(np.uint32, (64, 2)))
def test_bfloat16_is_rounded_as_torch_rounds_to_the_last_bit(bits: np.ndarray) -> None:
    values = bits.view(np.float32)
    values = np.where(np.abs(values) > 3.38e38, np.float32(1.0), values)  # infinity, NaN and what rounds to it: below
    expected = torch.from_numpy(values).bfloat16().view(torch.int16).numpy().view(np.uint16)
    np.testing.assert_array_equal(bfloat16(values), expected)


def test_ties_go_to_even_and_denormals_and_zeros_keep_their_sign() -> None:
    patterns = [0x3F80_8000, 0x3F81_8000, 0xBF80_8000, 0x3F80_8001, 0x3F80_7FFF, 0x0000_0001, 0x8000_0001, 0x0000_8000,
                0x0001_8000, 0x0000_8001, 0x0000_0000, 0x8000_0000, 0x007F_FFFF]  # fmt: skip
    held = [0x3F80, 0x3F82, 0xBF80, 0x3F81, 0x3F80, 0x0000, 0x8000, 0x0000, 0x0002, 0x0001, 0x0000, 0x8000, 0x0080]
    assert bfloat16(np.array([patterns], dtype=np.uint32).view(np.float32)).tolist() == [held]


@given(
    hnp.arrays(np.uint32, (8, 3)),
    st.integers(0, 7),
    st.sampled_from([0x7F80_0000, 0xFF80_0000, 0x7F80_0001, 0xFFFF_FFFF]),
)
def test_infinity_stays_infinity_and_no_nan_becomes_a_number(bits: np.ndarray, row: int, wild: int) -> None:
    values = np.where(np.abs(bits.view(np.float32)) < 3.38e38, bits.view(np.float32), np.float32(1.0))
    values[row, 1] = np.uint32(wild).view(np.float32)
    row_format = RowFormat("bfloat16", 3)
    back = row_format.decode(row_format.encode(values)[0])
    np.testing.assert_array_equal(back, torch.from_numpy(values).bfloat16().float().numpy())  # equal NaN in both


@pytest.mark.parametrize(
    ("dtype", "fits", "too_large"), [("float16", 65_519.0, 65_520.0), ("bfloat16", 3.3895e38, 3.4e38)]
)
@pytest.mark.parametrize("beside", [0.0, np.inf, np.nan])
def test_a_finite_value_that_does_not_fit_is_named_with_the_way_out(
    dtype: RowType, fits: float, too_large: float, beside: float
) -> None:
    row_format = RowFormat(dtype, 2)
    assert np.isfinite(row_format.decode(row_format.encode(np.float32([[fits, -fits]]))[0])).all()
    for sign in (1, -1):
        with pytest.raises(NumericsError, match=rf"does not fit {dtype}, which ends at .*harvest.dtype = .float32"):
            row_format.encode(np.float32([[sign * too_large, beside]]))


@pytest.mark.parametrize("dtype", ROW_TYPES)
def test_what_is_stored_is_stored_the_same_again(dtype: RowType) -> None:
    rows = np.random.default_rng(0).standard_normal((500, 7)).astype(np.float32)
    row_format = RowFormat(dtype, 7, calibrated_scales(rows) if dtype == "int8" else None)
    stored, _ = row_format.encode(rows)
    back = row_format.decode(stored)
    again, n_clipped = row_format.encode(back)
    assert (back.dtype, back.shape, n_clipped) == (np.float32, rows.shape, 0)
    np.testing.assert_array_equal(again, stored)
    assert stored.shape[1] == row_format.row_bytes == 7 * {"float32": 4, "int8": 1}.get(dtype, 2)
    largest_error = {"float32": 0.0, "bfloat16": 2**-8, "float16": 2**-11, "int8": 0.5 * 1.25 / 127}[dtype]
    scale = np.abs(rows).max(0) if dtype == "int8" else np.maximum(np.abs(rows), 2**-14)
    assert (np.abs(back - rows) <= largest_error * scale * 1.001).all()


@given(st.integers(0, 2**32 - 1), st.floats(-6, 6))
def test_an_int8_value_is_within_half_a_step_and_others_are_clipped_and_counted(seed: int, magnitude: float) -> None:
    rows = (np.random.default_rng(seed).standard_normal((50, 4)) * 10.0**magnitude).astype(np.float32)
    row_format = RowFormat("int8", 4, calibrated_scales(rows[:25]))
    assert row_format.scales is not None
    steps = np.float32(row_format.scales)
    stored, n_clipped = row_format.encode(rows)
    is_outside = np.abs(rows) > 127.5 * steps * (1 + 1e-6)
    is_inside = np.abs(rows) < 127.5 * steps * (1 - 1e-6)
    assert is_outside.sum() <= n_clipped <= (~is_inside).sum()
    error = np.abs(row_format.decode(stored) - rows)
    assert (error <= 0.5001 * steps)[is_inside].all()
    assert (row_format.decode(stored) == np.sign(rows) * 127 * steps)[is_outside].all()
    assert not is_outside[:25].any()  # what the scales were made from fits, and a quarter more


def test_a_large_dimension_does_not_cost_the_small_ones_their_digits() -> None:
    rows = np.random.default_rng(0).standard_normal((2000, 3)).astype(np.float32) * np.float32([1000.0, 1.0, 0.001])
    row_format = RowFormat("int8", 3, calibrated_scales(rows))
    error = row_format.decode(row_format.encode(rows)[0]) - rows
    decibels = 10 * np.log10((rows**2).sum(0) / (error**2).sum(0))
    assert (decibels > 35).all()


def test_a_dimension_that_is_always_zero_stays_zero() -> None:
    rows = np.float32([[0.0, 1.0], [0.0, -2.0]])
    row_format = RowFormat("int8", 2, calibrated_scales(rows))
    assert (row_format.decode(row_format.encode(rows)[0])[:, 0] == 0).all()


@pytest.mark.parametrize("row_format", [RowFormat("bfloat16", 4), RowFormat("int8", 2, (0.1, 1e-7))])
def test_a_format_is_read_back_from_json(row_format: RowFormat) -> None:
    assert RowFormat.from_json(row_format.as_json()) == row_format


def test_a_format_of_a_later_version_is_refused() -> None:
    with pytest.raises(ArtifactError, match="'float4'; this mohole reads bfloat16, float32"):
        RowFormat.from_json({"dtype": "float4", "width": 3, "scales": None})


def test_int8_refuses_what_is_not_finite() -> None:
    """Rounded to a whole number a NaN would be a zero, and nobody would know."""
    rows = np.ones((4, 3), dtype=np.float32)
    row_format = RowFormat("int8", 3, calibrated_scales(rows))
    rows[2, 1] = np.nan
    with pytest.raises(NumericsError, match="NaN or infinity"):
        row_format.encode(rows)
    with pytest.raises(NumericsError, match="NaN or infinity"):
        calibrated_scales(rows)
