"""What one latent does in the model at one place of a text: the window is run as it is, and again without what the latent adds.

    x' = x - s(x) f(x) d        at every token of the window's text, at the dictionary's hookpoint; s as in interventions.py

What the dictionary does not explain stays in x'. A begin-of-text token and special tokens are left alone: no dictionary was
trained on their rows. Beside it stands what any push does: as far, at the same tokens, along one random direction.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mohole import keys
from mohole.corpus import Corpus
from mohole.dictionary import AnyDictionary, Autoencoder, NormalisedAutoencoder, SparseAutoencoder
from mohole.dictionary.clamped import ClampedLatents
from mohole.errors import ConfigError, NumericsError, StageError
from mohole.evaluate.in_model.edits import replacing
from mohole.evaluate.in_model.passages import text_mask
from mohole.evaluate.standin import stand_in
from mohole.metrics import scored_pairs
from mohole.metrics.language import token_nats
from mohole.model import LanguageModel, Trunk

TOP = 10
AFTER = 64
"""Tokens run behind the one asked about: a feature mostly shows later than in the next token."""


@dataclass(frozen=True, slots=True)
class LogitChange:
    """A vocabulary entry whose logit the latent changes."""

    token: str
    logit: float
    """Logit with the latent less without it, both less their mean over the entries that the corpus has: a softmax ignores it."""
    probability: float
    """Of the entry as the next token, the model as it is."""
    probability_without: float


@dataclass(frozen=True, slots=True)
class AblationEffect:
    """What goes away with a latent's contribution. Tokens are those of the window, from its first to `AFTER` behind `token`."""

    hookpoint: str
    latent: int
    token: int
    """Global index of the token asked about."""
    document: int
    start: int
    """Global index of the first token, the window's: windows are run alone, as in harvest, so nothing before it was run."""
    tokens: tuple[str, ...]
    activations: tuple[float, ...]
    """Of the latent, as the model has it now; 0 where it is silent and at tokens that are no text."""
    loss: tuple[float | None, ...]
    """-ln p(token | what stands before it), nats, the model as it is. None where nothing is predicted: the window's first
    token, special tokens and what follows them."""
    loss_change: tuple[float | None, ...]
    """Loss without the latent less loss with it, nats: above 0 the latent helps to foretell this token."""
    loss_change_random: tuple[float | None, ...]
    """The same for a push as far along one random direction."""
    promoted: tuple[LogitChange, ...]
    """Of the prediction made at `token`: what the latent raises most, strongest first."""
    suppressed: tuple[LogitChange, ...]
    n_removed: int
    """Tokens at which the contribution was taken away: all of the text that was run, or there is an error instead."""

    @property
    def end(self) -> int:
        """One past the last token."""
        return self.start + len(self.tokens)


@torch.no_grad()
def ablation_effect(
    model: LanguageModel,
    dictionary: AnyDictionary,
    corpus: Corpus,
    latent: int,
    token: int,
    *,
    top: int = TOP,
    after: int = AFTER,
    seed: int = 0,
) -> AblationEffect:
    """Take a latent's contribution away around one token of the corpus, and see what the model's predictions lose.

    Costs two passes over a window and what lies behind the hookpoint of a third.

    Args:
        token: global index of the token, as `Example.token` of a catalogue.
        top: vocabulary entries of each kind.
        after: tokens run behind it. None before it is left out.
        seed: of the random direction.

    Raises:
        ConfigError: a dictionary that writes elsewhere than it reads, no such latent or token. HookpointError: the model has no
            such place, or of another width. StageError: the token is no text, or the edit did not fire for every row.
        NumericsError: a prediction that is no finite number.
    """
    ready, hookpoint = _ready(model, dictionary, latent)
    start, ids, is_text = _window(model, corpus, token, after)
    first = int(corpus.has_bos)
    place = token - start + first
    removed = ClampedLatents(ready, torch.tensor([latent]), torch.zeros(1))
    clean = model.untouched(ids, reads=[hookpoint], changes=[hookpoint])
    ablated, pushed = (
        _changed(model, ids, is_text, hookpoint, change, clean.trunk)
        for change in (removed.apply, _push(removed, seed))
    )
    nats = [_nats(logits, ids, is_text)[first:] for logits in (clean.logits, ablated, pushed)]
    after_token = clean.logits[0, place].float().cpu(), ablated[0, place].float().cpu()
    promoted, suppressed = _changes(*after_token, corpus, top)
    activations = torch.zeros(ids.shape[1])
    activations[is_text[0]] = -removed.shift(clean.rows[hookpoint][is_text.to(model.device)].float().cpu())[:, 0] + 0.0
    return AblationEffect(
        hookpoint=hookpoint,
        latent=latent,
        token=token,
        document=int(corpus.document_of(np.array([token]))[0]),
        start=start,
        tokens=tuple(corpus.pieces[each] for each in ids[0, first:].tolist()),
        activations=tuple(activations[first:].tolist()),
        loss=_each(nats[0]),
        loss_change=_each(nats[1] - nats[0]),
        loss_change_random=_each(nats[2] - nats[0]),
        promoted=promoted,
        suppressed=suppressed,
        n_removed=int(is_text.sum()),
    )


def _ready(model: LanguageModel, dictionary: AnyDictionary, latent: int) -> tuple[Autoencoder, str]:
    """The dictionary in float32 and in main memory, and its hookpoint in the model's words."""
    standin = stand_in(dictionary, model)
    if not isinstance(standin.dictionary, SparseAutoencoder | NormalisedAutoencoder):
        raise ConfigError(
            f"{standin.name}: a {standin.kind}; effects are taken of dictionaries that write where they read"
        )
    if not 0 <= latent < standin.n_latents:
        raise ConfigError(f"latent {latent}: the dictionary at {standin.name} has latents 0 to {standin.n_latents - 1}")
    return standin.dictionary, standin.reads[0]


def _window(
    model: LanguageModel, corpus: Corpus, token: int, after: int
) -> tuple[int, Int[Tensor, "1 position"], Bool[Tensor, "1 position"]]:
    """The token's window as harvest ran it, cut behind what is wanted: its first token, its ids, and which are text."""
    if not 0 <= token < corpus.n_tokens:
        raise ConfigError(f"token {token}: the corpus has {corpus.n_tokens} (0-{corpus.n_tokens - 1})")
    windows, first = corpus.windows, int(corpus.has_bos)
    number = np.searchsorted(windows.start, token, side="right") - 1
    start = int(windows.start[number])
    length = min(int(windows.length[number]), token - start + 1 + after)
    whole = corpus.window_tokens(np.array([number]), model.bos_id if first else None)
    ids = torch.from_numpy(whole[:, : first + length])
    is_text = text_mask(ids, np.array([length]), first, model.special_ids)
    if not bool(is_text[0, token - start + first]):
        raise StageError(
            f"token {token}: {corpus.pieces[corpus.tokens[token]]!r} is special, so no latent has a row there"
        )
    return start, ids, is_text


def _changed(
    model: LanguageModel,
    ids: Int[Tensor, "1 position"],
    is_text: Bool[Tensor, "1 position"],
    hookpoint: str,
    change: Callable[[Tensor], Tensor],
    trunk: Trunk | None,
) -> Float[Tensor, "1 position vocab"]:
    """Logits with every row of text changed."""
    counted = _Counted(change)
    logits = model.logits(ids, [replacing(hookpoint, is_text, counted)], trunk=trunk)
    if counted.n_rows != int(is_text.sum()):
        raise StageError(
            f"{hookpoint}: the edit fired for {counted.n_rows} rows of {int(is_text.sum())}, so nothing is known of the "
            "latent's effect; load the model with its self-test on to check its hookpoints"
        )
    return logits


@dataclass
class _Counted:
    """A change of rows, in float32 and main memory whatever the model's are, that counts what it was given."""

    change: Callable[[Tensor], Tensor]
    n_rows: int = 0

    def __call__(self, rows: Float[Tensor, "row d"]) -> Float[Tensor, "row d"]:
        self.n_rows += len(rows)
        return self.change(rows.float().cpu()).to(rows)


def _push(removed: ClampedLatents, seed: int) -> Callable[[Tensor], Tensor]:
    """As far as the removal, along a random direction as long as the latent's."""
    dictionary, latent = removed.dictionary, int(removed.latents[0])
    drawn = torch.from_numpy(
        keys.normal(seed, keys.Use.CAUSAL_DIRECTION, np.array([latent]), dictionary.d_model)[0]
    ).float()
    stray = drawn / drawn.norm() * dictionary.directions(removed.latents)[0].norm()

    return lambda rows: rows + removed.movement(rows) * stray


def _nats(
    logits: Float[Tensor, "1 position vocab"], ids: Int[Tensor, "1 position"], is_text: Bool[Tensor, "1 position"]
) -> Float[Tensor, " position"]:
    """Loss of each token; NaN where none is scored."""
    scored = scored_pairs(is_text)[0]
    nats = torch.full((ids.shape[1],), torch.nan, dtype=torch.float64)
    found = token_nats(logits[0, :-1][scored.to(logits.device)].cpu(), ids[0, 1:][scored])
    if not bool(torch.isfinite(found).all()):
        raise NumericsError("a prediction is no finite number; load the model as float32")
    nats[1:][scored] = found
    return nats


def _each(values: Float[Tensor, " position"]) -> tuple[float | None, ...]:
    return tuple(None if value != value else value for value in values.tolist())


def _changes(
    clean: Float[Tensor, " vocab"], without: Float[Tensor, " vocab"], corpus: Corpus, top: int
) -> tuple[tuple[LogitChange, ...], tuple[LogitChange, ...]]:
    """The entries that the latent raises and lowers most, of those that the corpus has: others' rows were never trained, are
    alike, and would head both lists."""
    seen = torch.from_numpy(corpus.seen)
    change = (clean - without)[seen]
    change = change - change.mean()
    odds, odds_without = clean.softmax(0), without.softmax(0)

    def entry(place: int) -> LogitChange:
        token = int(seen[place])
        return LogitChange(corpus.pieces[token], float(change[place]), float(odds[token]), float(odds_without[token]))

    order = change.argsort(descending=True, stable=True).tolist()
    raised = [place for place in order[:top] if change[place] > 0]
    lowered = [place for place in order[::-1][:top] if change[place] < 0]
    return tuple(map(entry, raised)), tuple(map(entry, lowered))
