"""What a step moves through memory, counted from its shapes: the least that it can. Formulas only, nothing is measured.

What fits no cache is counted: weights, moments, what each kept pair gathers, rows. Not counted: tiles of pre-activations, what is
read again because a cache was too small, copies of 16 bits, dead latents' own step.
"""

from mohole.config import Train
from mohole.config.train import Adam
from mohole.train.weights import Sites, layers_of

_FLOAT = 4


def moment_bytes(settings: Train) -> int:
    """Of each weight: what the optimiser remembers."""
    if isinstance(settings.optimiser, Adam):
        return 2 * {"float32": 4, "bfloat16": 2, "8bit": 1}[settings.optimiser.moments]
    return 4


def step_bytes(settings: Train, reads: Sites, writes: Sites, n_kept: int, *, in_tiles: bool) -> int:
    """Bytes read and written by a step that kept so many pairs, in pairs or in tiles of latents.

    rows       read, and targets; the error written and read
    weights    the encoder read for codes; all read and written by the optimiser, and its moments
    in pairs   a decoder row for the output, one for the gradient of a code, and a row of the batch and of the error for the
               gradients of weights, which are summed twice where they may have to be clipped: that is not counted
    in tiles   the decoder read for the output and for the gradients, which are written, and read by the optimiser
    """
    layers = layers_of(settings.learns, reads, writes)
    d_in, d_out = (sum(int(columns[end].stop - columns[end].start) for columns in layers) for end in (0, 1))
    numbers = settings.n_latents * (d_in + d_out)
    rows = settings.batch_rows * (reads.width + 3 * writes.width)
    moved = _FLOAT * (rows + settings.n_latents * d_in) + 2 * numbers * (_FLOAT + moment_bytes(settings))
    if in_tiles:
        return moved + _FLOAT * (2 * settings.n_latents * d_out + 2 * numbers)
    a_pair = (2 * d_out + d_in + d_out) / len(layers)
    return moved + int(_FLOAT * n_kept * a_pair)
