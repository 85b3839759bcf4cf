"""Definitions with a historical bug each, which the known answers must catch. Never used to measure anything.

That a suite of checks passes says little; that it fails for every bug that other libraries shipped says what it would see.
"""

from mohole.metrics.mutants import (
    centred,
    correlated,
    detected,
    diffed,
    directed,
    fired,
    matched,
    predicted,
    rebuilt,
    split,
    summed,
)
from mohole.metrics.mutants.mutant import Mutant

MUTANTS: tuple[Mutant, ...] = (
    *rebuilt.MUTANTS, *fired.MUTANTS, *predicted.MUTANTS, *detected.MUTANTS, *centred.MUTANTS, *summed.MUTANTS,
    *directed.MUTANTS, *matched.MUTANTS, *split.MUTANTS, *correlated.MUTANTS, *diffed.MUTANTS,
)  # fmt: skip

__all__ = ["MUTANTS", "Mutant"]
