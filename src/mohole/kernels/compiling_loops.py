"""numba's loops are told of while they are compiled. numba says when it compiles, and not when it finds what it compiled before.

Imports numba: only where loops of it are.
"""

from typing import Any

from numba.core import event

from mohole.kernels.compiling import Compiling

COMPILING = Compiling("compiling kernels for this processor; once on this machine, it is kept for the next time")


class _Listener(event.Listener):
    def on_start(self, event: Any) -> None:
        COMPILING.__enter__()

    def on_end(self, event: Any) -> None:
        COMPILING.__exit__(None, None, None)


event.register("numba:compile", _Listener())  # type: ignore[no-untyped-call]  # once in a process, by whoever imports this first
