"""A new text through the model, as harvest runs a document: the same windows, the same rows, and a dictionary's codes of them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mohole.corpus import batches
from mohole.corpus.windows import cut
from mohole.dictionary import AnyDictionary, Crosscoder, CrossLayerTranscoder, SparseCodes
from mohole.errors import ConfigError, NumericsError
from mohole.evaluate.standin import StandIn, stand_in
from mohole.model import LanguageModel

Int64 = NDArray[np.int64]

_BATCH_TOKENS = 2048
_CONTEXT = 1024
"""Tokens of a window, of a model that does not say how many it was made for."""


@dataclass(frozen=True)
class Reading:
    """A text cut into tokens, ready to be run."""

    model: LanguageModel
    standin: StandIn
    tokens: Int64
    """Ids; no begin-of-text token, which stands in front of each window."""
    pieces: tuple[str, ...]
    """Each token as a person reads it, as in a corpus."""
    context: int

    def codes(self) -> Iterator[tuple[Int64, SparseCodes]]:
        """Token places and the codes of their rows, window by window. Special tokens in the text have no row, as in training.

        Raises:
            NumericsError: an activation that is no finite number.
        """
        bos_id, hookpoint = self.model.bos_id, self.standin.reads[0]
        first = int(bos_id is not None)
        windows = cut(np.asarray([0, len(self.tokens)]), self.context - first)
        is_special = np.isin(self.tokens, list(self.model.special_ids))
        for batch in batches(windows, _BATCH_TOKENS):
            starts, lengths = windows.start[batch], windows.length[batch]
            offsets = np.arange(int(lengths.max()) + first) - first
            inside = (offsets >= 0) & (offsets < lengths[:, None])
            places = starts[:, None] + np.maximum(offsets, 0)
            run = np.where(inside, self.tokens[np.minimum(places, len(self.tokens) - 1)], 0)
            if bos_id is not None:
                run[:, 0] = bos_id
            rows = self.model.read(torch.from_numpy(run), [hookpoint], held_as=torch.float32)[hookpoint]
            inside &= ~is_special[np.minimum(places, len(self.tokens) - 1)]
            wanted = rows[torch.from_numpy(inside).to(rows.device)]
            if not torch.isfinite(wanted).all():
                raise NumericsError(f"{hookpoint}: NaN or infinity in the text's rows; load the model as float32")
            dictionary = self.standin.dictionary
            assert not isinstance(dictionary, CrossLayerTranscoder)
            yield places[inside], dictionary.encode(self.standin.taken(wanted)).cpu()


def read(
    model: LanguageModel, dictionary: AnyDictionary, text: str, *, hookpoint: str, context: int | None = None
) -> Reading:
    """Cut a text as a document of a corpus is cut.

    Args:
        hookpoint: where the dictionary reads; said again so that rows of one place are never given to a dictionary of another.
        context: tokens of a window, as the run's corpus has them; None: what the model was made for.

    Raises:
        ConfigError: no text, text that is no Unicode, a dictionary of several hookpoints or of another one, a context in which no
            text has room. HookpointError: the model has no such place, or of another width.
    """
    if isinstance(dictionary, Crosscoder | CrossLayerTranscoder):
        places = ", ".join(dictionary.hookpoints if isinstance(dictionary, Crosscoder) else dictionary.reads)
        raise ConfigError(f"dictionary: reads {places}; texts are looked at with a dictionary of one hookpoint")
    standin = stand_in(dictionary, model)
    if model.canonical(hookpoint) != standin.reads[0]:
        raise ConfigError(
            f"hookpoint: {hookpoint}, and this dictionary reads {standin.reads[0]}; say that, or open the other"
        )
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ConfigError(f"text: character {error.start} is half of one ({text[error.start]!r}); give UTF-8") from None
    ids = model.tokenizer.encode(text)
    if not ids:
        raise ConfigError(f"text: {text[:40]!r} has no token; give some text")
    context = context or model.context or _CONTEXT
    context = min(context, model.context or context)
    if context <= int(model.bos_id is not None):
        raise ConfigError(f"context: {context} leaves no room for text; at least 2")
    pieces = {token: model.tokenizer.piece(token) for token in set(ids)}
    return Reading(model, standin, np.asarray(ids, dtype=np.int64), tuple(pieces[token] for token in ids), context)
