"""Triton's interpreter, mended and with small tiles: it runs the programs of `kernels.gpu` on a machine without a device."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import pytest


@contextmanager
def interpreted() -> Iterator[ModuleType]:
    """The module `gpu`, with tiles so small that there are several in little time."""
    from mohole.kernels import gpu, gpu_encode, gpu_sums

    with pytest.MonkeyPatch.context() as patch:
        for name in ("_WIDE", "_HALVES", "_EXACT"):
            patch.setattr(gpu_encode, name, gpu.Tile(rows=16, latents=32, columns=16, warps=4, stages=1))
        patch.setattr(gpu_encode, "_PARTS", 2)
        patch.setattr(gpu_sums, "_PIECE_PAIRS", 16)
        _mend(patch)
        yield gpu


def _mend(patch: pytest.MonkeyPatch) -> None:
    """It patches Triton's language at every call of a function, which is four fifths of the time: once a launch is enough.

    And it multiplies bfloat16 as the whole numbers it keeps them as: they are widened to float32, which is exact, before. It
    cuts digits off where devices round to the nearest even number.
    """
    from triton import language
    from triton.runtime import interpreter

    whole = FunctionType((lambda: None).__code__, {"language": language, "core": language.core})
    patch_language = interpreter._patch_lang  # patches the modules that a function's globals name
    patch.setattr(interpreter, "_patch_lang", lambda function: patch_language(whole))
    patch.setattr(
        interpreter.InterpretedFunction, "__call__", lambda self, *given, **named: self.rewrite()(*given, **named)
    )
    multiply = interpreter.InterpreterBuilder.create_dot

    def widened(operand: Any) -> Any:
        if operand.dtype.scalar != language.bfloat16:
            return operand
        return interpreter.TensorHandle((operand.data.astype(np.uint32) << 16).view(np.float32), language.float32)

    patch.setattr(
        interpreter.InterpreterBuilder,
        "create_dot",
        lambda self, left, right, *rest: multiply(self, widened(left), widened(right), *rest),
    )
    cast = interpreter.InterpreterBuilder.cast_impl

    def rounded(self: Any, source: Any, kind: Any) -> Any:
        if source.dtype.scalar != language.float32 or kind.scalar != language.bfloat16:
            return cast(self, source, kind)
        bits = np.ascontiguousarray(source.data, np.float32).view(np.uint32)
        nearest = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        found = np.where(np.isnan(source.data), np.uint32(0x7FC0), nearest).astype(np.uint16)
        return interpreter.TensorHandle(found, language.bfloat16)

    for name in ("cast_impl", "create_fp_trunc"):
        patch.setattr(interpreter.InterpreterBuilder, name, rounded)
