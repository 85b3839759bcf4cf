"""Machine instructions that numba has no name for: stores that pass the cache by, and reading ahead. Compiled code only."""

from typing import Any, no_type_check

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

LINE_BYTES = 64
_STORE_BYTES = 32  # the widest store that every 64-bit machine of the last ten years has, or LLVM halves it

# no_type_check: numba calls these while it compiles, with objects of its own.


@intrinsic
@no_type_check
def copy_line(typing_context: Any, target: Any, source: Any) -> Any:
    """Copy 64 bytes between addresses; the target's must be a multiple of 32.

    A plain store first reads the line it is about to overwrite: a third of all traffic when whole lines are written.
    """

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        vector = ir.VectorType(ir.IntType(32), _STORE_BYTES // 4)
        streaming = builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)])
        for offset in range(0, LINE_BYTES, _STORE_BYTES):
            to, origin = (
                builder.inttoptr(builder.add(address, ir.Constant(address.type, offset)), vector.as_pointer())
                for address in arguments
            )
            loaded = builder.load(origin)
            loaded.align = 1
            stored = builder.store(loaded, to)
            stored.align = _STORE_BYTES
            stored.set_metadata("nontemporal", streaming)
        return context.get_dummy_value()

    return types.void(types.uintp, types.uintp), generate


@intrinsic
@no_type_check
def read_ahead(typing_context: Any, address: Any) -> Any:
    """Ask for the line at an address, which need not be valid, before it is needed."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        prefetch = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        # For reading (0), without keeping it (0), data (1).
        builder.call(prefetch, [builder.inttoptr(arguments[0], byte), number(0), number(0), number(1)])
        return context.get_dummy_value()

    return types.void(types.uintp), generate


@intrinsic
@no_type_check
def fence(typing_context: Any) -> Any:
    """Streaming stores before it are seen by every thread after it."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), generate
