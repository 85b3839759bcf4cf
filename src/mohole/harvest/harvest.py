"""Run the model over every window of a corpus and write one row per token. Rows stand in the order of the corpus.

Masks: a row exists for every token of the text that is not a special token of the model; the begin-of-text token put in
front of a window, and padding, have none. Windows run alone and padded on the right, so a row depends on its document
only, not on the batch it was in.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mohole.config import Harvest
from mohole.corpus import Corpus, Windows, batches
from mohole.errors import NumericsError
from mohole.model import LanguageModel
from mohole.progress import track
from mohole.store import StoreWriter

Int64 = NDArray[np.int64]


def harvest(out: Path, model: LanguageModel, corpus: Corpus, settings: Harvest) -> None:
    """Write the activations of `model` at `settings.hookpoints` over `corpus` into `out`.

    Raises:
        HookpointError: the model has no such hookpoint.
        NumericsError: an activation is NaN or infinite; names the hookpoint, the document and the token.
    """
    hookpoints = [model.canonical(hookpoint) for hookpoint in settings.hookpoints]
    has_row = ~np.isin(corpus.tokens, list(model.special_ids))
    row_of: Int64 = np.cumsum(has_row) - has_row  # the row of a token that has one
    row_tokens = np.flatnonzero(has_row)
    held_out = corpus.held_out[corpus.document_of(row_tokens)]
    widths = dict.fromkeys(hookpoints, model.d_model)
    windows = corpus.windows
    with (
        StoreWriter(out, row_tokens, held_out, widths, settings.dtype) as writer,
        track("harvest", corpus.n_tokens, "tokens") as tracker,
    ):
        for batch in batches(windows, settings.batch_tokens):
            tokens = torch.from_numpy(corpus.window_tokens(batch, model.bos_id if corpus.has_bos else None))
            activations = model.read(tokens, hookpoints)
            for hookpoint in hookpoints:
                rows = activations[hookpoint].float().cpu()
                for place, window in enumerate(batch.tolist()):
                    kept = _text_rows(rows[place], windows, window, corpus, has_row, hookpoint)
                    writer.write(hookpoint, int(row_of[windows.start[window]]), kept)
            tracker.advance(int(windows.length[batch].sum()))


def _text_rows(
    rows: Tensor, windows: Windows, window: int, corpus: Corpus, has_row: NDArray[np.bool_], hookpoint: str
) -> NDArray[np.float32]:
    start, length = int(windows.start[window]), int(windows.length[window])
    first = int(corpus.has_bos)
    kept: NDArray[np.float32] = rows[first : first + length].numpy()[has_row[start : start + length]]
    if not np.isfinite(kept).all():
        place = np.flatnonzero(~np.isfinite(kept).all(axis=1))[0]
        token = start + np.flatnonzero(has_row[start : start + length])[place]
        document = int(corpus.document_of(np.asarray([token]))[0])
        raise NumericsError(
            f"{hookpoint}: NaN or infinity at token {token - corpus.document_starts[document]} "
            f"({corpus.pieces[corpus.tokens[token]]!r}) of document {document}; try model.dtype=float32, or check the weights"
        )
    return kept
