"""Run the model over every window of a corpus and write one row per token. Rows stand in the order of the corpus.

Masks: a row exists for every token of the text that is not a special token of the model; the begin-of-text token put in
front of a window, and padding, have none. Windows run alone and padded on the right, so a row depends on its document
only, not on the batch it was in.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mohole.config import Harvest
from mohole.corpus import Corpus, batches
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
    windows, first, is_special = corpus.windows, int(corpus.has_bos), not has_row.all()
    with (
        StoreWriter(out, row_tokens, held_out, widths, settings.dtype) as writer,
        track("harvest", corpus.n_tokens, "tokens") as tracker,
    ):
        for batch in batches(windows, settings.batch_tokens):
            tokens = torch.from_numpy(corpus.window_tokens(batch, model.bos_id if corpus.has_bos else None))
            activations = model.read(tokens, hookpoints)
            for hookpoint in hookpoints:
                rows = activations[hookpoint].float().cpu()
                is_sound = bool(rows.sum().isfinite())  # one pass; a sum that overflows is looked at row by row below
                values: NDArray[np.float32] = rows.numpy()
                for place, window in enumerate(batch.tolist()):
                    start, length = int(windows.start[window]), int(windows.length[window])
                    kept = values[place, first : first + length]
                    if is_special:
                        kept = kept[has_row[start : start + length]]
                    if not is_sound:
                        _require_finite(
                            kept, start + np.flatnonzero(has_row[start : start + length]), corpus, hookpoint
                        )
                    writer.write(hookpoint, int(row_of[start]), kept)
            tracker.advance(int(windows.length[batch].sum()))


def _require_finite(rows: NDArray[np.float32], tokens: Int64, corpus: Corpus, hookpoint: str) -> None:
    wrong = ~np.isfinite(rows).all(axis=1)
    if wrong.any():
        token = int(tokens[np.flatnonzero(wrong)[0]])
        document = int(corpus.document_of(np.asarray([token]))[0])
        raise NumericsError(
            f"{hookpoint}: NaN or infinity at token {token - corpus.document_starts[document]} "
            f"({corpus.pieces[corpus.tokens[token]]!r}) of document {document}; try model.dtype=float32, or check the weights"
        )
