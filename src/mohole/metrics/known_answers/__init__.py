"""Numbers that are known in advance, asked of our definitions before they are believed. No model, no files.

Each check builds rows, codes, predictions or scores whose number follows from how they were made, and asks for it.
"""

from mohole.metrics.known_answers import (
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
from mohole.metrics.known_answers.answer import Answer, Asked, Check, ask, refuses

CHECKS: tuple[Check, ...] = (
    *rebuilt.CHECKS, *fired.CHECKS, *predicted.CHECKS, *detected.CHECKS, *centred.CHECKS, *summed.CHECKS,
    *directed.CHECKS, *matched.CHECKS, *split.CHECKS, *correlated.CHECKS, *diffed.CHECKS, *fitted.CHECKS,
    *spoken.CHECKS, *owned.CHECKS, *probed.CHECKS, *removed.CHECKS, *absorbed.CHECKS, *interchanged.CHECKS,
    *forgotten.CHECKS, *judged.CHECKS, *written.CHECKS,
)  # fmt: skip
"""Within a file the slow ones come last: a mutant is caught by the first that is wrong."""

__all__ = ["CHECKS", "Answer", "Asked", "Check", "ask", "refuses"]
