"""Triton's programs are told of while they are compiled: for each device and each set of types, sizes and tiles anew.

Triton's own hooks are left alone: each has one place for all of a process, which may be somebody's profiler's, and the one behind
compiling is not called where compiling fails, as it may for a tile that is tried.
"""

from typing import Any

from mohole.kernels.compiling import Compiling

COMPILING = Compiling("compiling kernels for this GPU; once for these sizes, it is kept for the next time")


def told(program: Any) -> Any:
    """The program, told of. What its interpreter runs is not compiled, and is left as it is."""
    compile_it = getattr(program, "_do_compile", None)
    if compile_it is not None:  # else it compiles in silence, as it would without this

        def compile_and_tell(*given: Any, **named: Any) -> Any:
            with COMPILING:
                return compile_it(*given, **named)

        program._do_compile = compile_and_tell
    return program
