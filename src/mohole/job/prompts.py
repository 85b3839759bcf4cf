"""Texts to continue, and other text that nobody asked to be steered, from a run's corpus."""

import torch
from torch import Tensor

from mohole.byte_pieces import is_broken
from mohole.corpus import Corpus
from mohole.model import LanguageModel

N_PROMPTS = 4
"""That a demonstration shows."""
N_TRIAL_PROMPTS = 8
_PROMPT_TOKENS = 12
_TEXTS = 24


def possible_prompts(corpus: Corpus, *, is_planted: bool) -> tuple[str, ...]:
    """Texts to continue, those to be shown first: the built-in model's own question, or how held-out documents begin."""
    if is_planted:
        from mohole.planted.prompts import bridge_prompts

        return bridge_prompts()
    documents = corpus.held_out.nonzero()[0].tolist()
    begun = dict.fromkeys(_beginning(corpus, document) for document in documents[: 4 * (N_PROMPTS + N_TRIAL_PROMPTS)])
    return tuple(text for text in begun if text.strip())[: N_PROMPTS + N_TRIAL_PROMPTS]


def _beginning(corpus: Corpus, document: int) -> str:
    """A document's first tokens, up to the last whole word."""
    start, end = int(corpus.document_starts[document]), int(corpus.document_starts[document + 1])
    stop = min(start + _PROMPT_TOKENS, end)
    while start + 1 < stop < end and _is_inside_a_word(corpus, stop):
        stop -= 1
    return corpus.text(start, stop).rstrip()


def _is_inside_a_word(corpus: Corpus, token: int) -> bool:
    """Does this token go on with the word of the token before?"""
    before, after = corpus.pieces[corpus.tokens[token - 1]], corpus.pieces[corpus.tokens[token]]
    return bool(before[-1:].isalnum() and after[:1].isalnum()) or (is_broken(before) and is_broken(after))


def other_texts(corpus: Corpus, model: LanguageModel) -> tuple[Tensor, ...]:
    """The first windows of some held-out documents, each with its begin-of-text token."""
    windows = corpus.windows
    is_held_out = corpus.held_out[corpus.document_of(windows.start)] & (windows.length > 1)
    chosen = is_held_out.nonzero()[0][:_TEXTS]
    bos = model.bos_id if corpus.has_bos else None
    return tuple(torch.from_numpy(corpus.window_tokens(chosen[i : i + 1], bos)) for i in range(len(chosen)))
