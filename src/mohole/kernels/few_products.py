"""Products of a few rows with a few encoder rows at a time: as many for each load as registers hold, in one order of sums.

A product is the same to the bit with whatever others it is computed: equal encoder rows have equal ones, and a row's do not
depend on its neighbours. LLVM, which may order a loop's sums as it likes, promises neither; so the order is written down: lane i
adds up columns i, i + LANES, i + 2 LANES..., the lanes are added in halves, and what is left of the columns one by one.

Of 768 columns a product takes 13 ns in a block, 40 by itself.
"""

from collections.abc import Callable
from typing import Any, no_type_check

import numba
from llvmlite import binding, ir
from numba.core import types
from numba.extending import intrinsic

LANES = 16 if binding.get_host_cpu_features().get("avx512f") else 8
"""What a register holds; on ARM two do."""
ROWS, LATENTS = 4, 2
"""Of a block: eight sums that do not wait for each other."""
STRIP = 4
"""Latents that one row takes at a time."""

_I32, _I64, _FLOAT = ir.IntType(32), ir.IntType(64), ir.FloatType()
_LANES = ir.VectorType(_FLOAT, LANES)


def _fused(builder: Any, kind: Any, name: str, one: Any, other: Any, total: Any) -> Any:
    """one * other + total, rounded once where the processor can: nowhere, or everywhere, as LLVM promises of this one alone."""
    multiply_add = builder.module.globals.get(name)
    if multiply_add is None:
        multiply_add = ir.Function(builder.module, ir.FunctionType(kind, [kind] * 3), name)
    return builder.call(multiply_add, [one, other, total])


def _added_lanes(builder: Any, sums: Any) -> Any:
    n = LANES
    while n > 1:
        n //= 2
        low, high = (
            builder.shuffle_vector(sums, sums, ir.Constant(ir.VectorType(_I32, n), list(range(start, start + n))))
            for start in (0, n)
        )
        sums = builder.fadd(low, high)
    return builder.extract_element(sums, ir.Constant(_I32, 0))


def _summed(
    builder: Any,
    n: Any,
    begins: Any,
    pairs: list[tuple[Any, Any]],
    load: Callable[[Any, Any], Any],
    kind: Any,
    name: str,
) -> list[Any]:
    """Of each pair of rows the sum of products over n steps, from what it begins with."""
    before, head = builder.block, builder.append_basic_block("head")
    loop, after = builder.append_basic_block("loop"), builder.append_basic_block("after")
    builder.branch(head)
    builder.position_at_end(head)
    step, held = builder.phi(_I64), [builder.phi(kind) for _ in pairs]
    step.add_incoming(ir.Constant(_I64, 0), before)
    for each, begin in zip(held, begins, strict=True):
        each.add_incoming(begin, before)
    builder.cbranch(builder.icmp_signed("<", step, n), loop, after)
    builder.position_at_end(loop)
    loaded = {id(row): load(row, step) for pair in pairs for row in pair}
    for each, (one, other) in zip(held, pairs, strict=True):
        each.add_incoming(_fused(builder, kind, name, loaded[id(one)], loaded[id(other)], each), loop)
    step.add_incoming(builder.add(step, ir.Constant(_I64, 1)), loop)
    builder.branch(head)
    builder.position_at_end(after)
    return held


def _products(n_rows: int, n_latents: int) -> Any:
    """out[r, at + c] = rows[left[place + r]] . latents[latent + c], of float32 or of whole numbers of eight bits."""

    @intrinsic
    @no_type_check
    def products(typing, rows, left, place, latents, latent, out, at):
        signature = types.void(rows, left, types.intp, latents, types.intp, out, types.intp)
        kind = ir.IntType(8) if latents.dtype == types.int8 else _FLOAT

        def generate(context, builder, signature, given):
            arrays = {i: context.make_array(signature.args[i])(context, builder, given[i]) for i in (0, 1, 3, 5)}
            x, which, w, found = (arrays[i].data for i in (0, 1, 3, 5))
            width, out_width = (builder.extract_value(arrays[i].shape, 1) for i in (0, 5))
            number = [ir.Constant(_I64, i) for i in range(LANES + 1)]

            def row_of(array, row, width):
                return builder.gep(array, [builder.mul(row, width)])

            places = [builder.gep(which, [builder.add(given[2], number[r])]) for r in range(n_rows)]
            rows_at = [row_of(x, builder.load(place), width) for place in places]
            latents_at = [row_of(w, builder.add(given[4], number[c]), width) for c in range(n_latents)]

            def loaded(row, column, lanes):
                own = kind if any(row is other for other in latents_at) else _FLOAT
                at, to = builder.gep(row, [column]), _FLOAT
                if lanes > 1:
                    at, to = builder.bitcast(at, ir.VectorType(own, lanes).as_pointer()), ir.VectorType(_FLOAT, lanes)
                numbers = builder.load(at)
                numbers.align = 4 if own is _FLOAT else 1
                return numbers if own is _FLOAT else builder.sitofp(numbers, to)

            pairs = [(row, other) for row in rows_at for other in latents_at]
            n_whole = builder.sdiv(width, number[LANES])
            first = builder.mul(n_whole, number[LANES])
            sums = _summed(
                builder, n_whole, [ir.Constant(_LANES, [0.0] * LANES)] * len(pairs), pairs,
                lambda row, step: loaded(row, builder.mul(step, number[LANES]), LANES), _LANES, f"llvm.fmuladd.v{LANES}f32",
            )  # fmt: skip
            sums = _summed(
                builder, builder.sub(width, first), [_added_lanes(builder, each) for each in sums], pairs,
                lambda row, step: loaded(row, builder.add(first, step), 1), _FLOAT, "llvm.fmuladd.f32",
            )  # fmt: skip
            for i, each in enumerate(sums):
                row = row_of(found, number[i // n_latents], out_width)
                builder.store(each, builder.gep(row, [builder.add(given[6], number[i % n_latents])]))
            return context.get_dummy_value()

        return signature, generate

    return products


_block, _strip, one_product = _products(ROWS, LATENTS), _products(1, STRIP), _products(1, 1)


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def products_of(rows, left, place, n_left, latents, first, last, products):
    """products [ROWS, C]: of the rows of `left` from `place` on, and latents [first, last), codes in units of their own. Of how
    many rows: ROWS, or 1 where fewer are left."""
    n_rows = ROWS if place + ROWS <= n_left else 1
    n_at_once = LATENTS if n_rows == ROWS else STRIP
    whole = last - (last - first) % n_at_once
    for latent in range(first, whole, n_at_once):
        if n_rows == ROWS:
            _block(rows, left, place, latents, latent, products, latent - first)
        else:
            _strip(rows, left, place, latents, latent, products, latent - first)
    for latent in range(whole, last):
        for r in range(n_rows):
            one_product(rows, left, place + r, latents, latent, products[r : r + 1], latent - first)
    return n_rows
