"""Latents taken out at every token: the edit that SCR, TPP and unlearning share, and what SCR and TPP say that it replaces."""

import numpy as np
from numpy.typing import NDArray

from mohole.evaluate.in_model.passages import REPLACED
from mohole.evaluate.suites.coders import Coder
from mohole.evaluate.suites.readout import RowEdit
from mohole.metrics import Masks
from mohole.metrics.concept_removal import without

Int64 = NDArray[np.int64]

MASKS = Masks(replaced=REPLACED, counted="tokens with the classes named in the definition")


def removing(coder: Coder, latents: Int64) -> RowEdit:
    """Rows less what these latents add to them."""
    return lambda rows, _tokens: without(rows, coder.parts(rows), coder.decoder, latents)
