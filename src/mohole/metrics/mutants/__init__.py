"""Definitions with a historical bug each, which the known answers must catch. Never used to measure anything.

That a suite of checks passes says little; that it fails for every bug that other libraries shipped says what it would see.
"""

from mohole.metrics.mutants import (
    absorbed,
    centred,
    correlated,
    detected,
    diffed,
    directed,
    fired,
    fitted,
    forgotten,
    interchanged,
    judged,
    matched,
    owned,
    predicted,
    probed,
    rebuilt,
    removed,
    split,
    spoken,
    summed,
    written,
)
from mohole.metrics.mutants.mutant import Mutant

MUTANTS: tuple[Mutant, ...] = (
    *rebuilt.MUTANTS, *fired.MUTANTS, *predicted.MUTANTS, *detected.MUTANTS, *centred.MUTANTS, *summed.MUTANTS,
    *directed.MUTANTS, *matched.MUTANTS, *split.MUTANTS, *correlated.MUTANTS, *diffed.MUTANTS, *fitted.MUTANTS,
    *spoken.MUTANTS, *owned.MUTANTS, *probed.MUTANTS, *removed.MUTANTS, *absorbed.MUTANTS, *interchanged.MUTANTS,
    *forgotten.MUTANTS, *judged.MUTANTS, *written.MUTANTS,
)  # fmt: skip

__all__ = ["MUTANTS", "Mutant"]
