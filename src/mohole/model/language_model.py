"""A loaded language model whose hookpoints are read and written by name. Loading is load.py's, family facts are families.py's."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import xxhash
from jaxtyping import Float, Int
from torch import Tensor, nn

from mohole.errors import HookpointError, ModelError
from mohole.model.families import Heads, Layout, find_anatomy
from mohole.model.generate import generate
from mohole.model.hookpoints import all_hookpoints, parse_hookpoint
from mohole.model.hooks import Edit, EditTally, Pass, Site, run_hooked
from mohole.model.passes import PassEdits, PassTokens, TextCache
from mohole.model.source import fingerprint
from mohole.model.tokenizer import Tokenizer
from mohole.model.trunk import Trunk, beginning_at, layers_before, recording

if TYPE_CHECKING:
    from mohole.model.self_test import SelfTest

Tokens = Int[Tensor, "batch position"]


@dataclass(frozen=True, slots=True)
class Untouched:
    """What one pass gave that nothing was changed in."""

    logits: Float[Tensor, "batch position vocab"]
    rows: dict[str, Float[Tensor, "batch position d"]]
    trunk: Trunk | None
    """Where passes over the same tokens may begin; None: at the first layer."""


class LanguageModel:
    """A causal language model in eval mode with named hookpoints. No gradients: it is read and steered, not trained.

    Rows are exact for right-padded batches: the model is causal, so what stands right of a token cannot reach it.
    `hf` is transformers' own module. Not for use from two threads at once: an edit would reach the other's forward pass.
    Wherever edits are taken, a `PassEdits` is one too: what it does depends on the tokens of the pass.
    """

    def __init__(
        self,
        hf: nn.Module,
        layout: Layout,
        *,
        name: str,
        tokenizer: Tokenizer | None = None,
        folder: Path | None = None,
    ) -> None:
        config: Any = hf.config
        text_config: Any = config.get_text_config()
        self.hf = hf.eval()
        self.name = name
        self.family: str = config.model_type
        self.layout = layout
        self.self_test: SelfTest | None = None  # its measurements, once it has passed
        self._anatomy = find_anatomy(hf, text_config, layout)
        self._trunk_is_proven: dict[int, bool] = {}  # by its number of layers
        self._tokenizer = tokenizer
        self._folder = folder
        self._standing: list[PassEdits] = []
        self._takes_positions = "position_ids" in inspect.signature(hf.forward).parameters
        self.n_layers = len(self._anatomy.blocks)
        self.d_model: int = text_config.hidden_size
        self.vocab_size: int = self._anatomy.unembedding.weight.shape[0]  # type: ignore[assignment, index]
        self.context: int | None = _context(text_config)  # positions the model was made for; None if it states none
        self.bos_id: int | None = tokenizer.bos_id if tokenizer else text_config.bos_token_id

    def __repr__(self) -> str:
        return f"LanguageModel({self.name!r}: {self.family}, {self.n_layers} layers, d_model {self.d_model})"

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer. ModelError if it was made without one."""
        if self._tokenizer is None:
            raise ModelError(f"{self.name}: no tokenizer; save the model with one, or give tokens")
        return self._tokenizer

    @property
    def tokenizer_or_none(self) -> Tokenizer | None:
        """None for a model that was made without one."""
        return self._tokenizer

    def writing_sites(self) -> dict[str, Site]:
        """The modules that write to the residual stream, by hookpoint: the embedding, each layer's attention and MLP."""
        layers = range(self.n_layers)
        names = ["embed", *(f"{kind}.{layer}" for layer in layers for kind in ("attn_out", "mlp_out"))]
        return {name: self._anatomy.sites[name] for name in names}

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.hf.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """What the model computes in."""
        return next(self.hf.parameters()).dtype

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids of BOS, EOS, padding and the like: not text."""
        return self.tokenizer.special_ids

    @cached_property
    def model_hash(self) -> str:
        """xxh3-128 of the weight, config and tokenizer files; of the parameters for a model that has no files."""
        if self._folder is not None:
            return fingerprint(self._folder)
        digest = xxhash.xxh3_128()
        for key, value in sorted(self.hf.state_dict().items()):
            digest.update(key.encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def hookpoints(self) -> list[str]:
        """Every hookpoint's name but those of single heads (`z.L.H`), in order of execution."""
        names = (str(point) for point in all_hookpoints(self.n_layers))
        return [name for name in names if name in self._anatomy.sites]

    @property
    def heads(self) -> Heads | None:
        """A layer's attention heads, where the model has `z`."""
        heads = self._anatomy.heads
        return heads if isinstance(heads, Heads) else None

    def canonical(self, hookpoint: str) -> str:
        """mohole's name of a hookpoint; HookpointError with the reason if this model has no such place."""
        point = parse_hookpoint(hookpoint, n_layers=self.n_layers, model=self.name)
        heads = self._anatomy.heads
        if point.kind == "z" and isinstance(heads, str):
            raise HookpointError(
                f"{hookpoint}: the {self.family} family offers no z: {heads}; attn_out.{point.layer} is what all heads add"
            )
        if point.head is not None and isinstance(heads, Heads) and point.head >= heads.n:
            raise HookpointError(f"{hookpoint}: {self.name} has {heads.n} heads in a layer (0-{heads.n - 1})")
        return str(point)

    def width(self, hookpoint: str) -> int:
        """Columns of a row at a hookpoint: those of the stream, but for `z`, which is as wide as its heads."""
        point = parse_hookpoint(self.canonical(hookpoint))
        if point.kind != "z" or self.heads is None:
            return self.d_model
        return self.heads.width if point.head is not None else self.heads.n * self.heads.width

    def without_z(self, reason: str) -> None:
        """Offer no `z` any more: the self-test could not prove it, and says why."""
        self._anatomy = replace(
            self._anatomy,
            sites={name: site for name, site in self._anatomy.sites.items() if not name.startswith("z.")},
            heads=reason,
        )

    @torch.no_grad()
    def project(self, layer: int, z: Float[Tensor, "*rows heads"]) -> Float[Tensor, "*rows d"]:
        """What a layer's attention adds to the stream (`attn_out`) when its heads give these rows."""
        return self._anatomy.project(layer, z.to(device=self.device, dtype=self.dtype))

    @torch.no_grad()
    def read(
        self,
        tokens: Tokens,
        hookpoints: Sequence[str],
        edits: Sequence[Edit | PassEdits] = (),
        *,
        tally: EditTally | None = None,
        trunk: Trunk | None = None,
        n_prompt: Sequence[int] | None = None,
        held_as: torch.dtype | None = None,
    ) -> dict[str, Float[Tensor, "batch position d"]]:
        """Rows at `hookpoints` for every token, none dropped, keyed by the names as given. Layers after the last one do not run.

        Rows at an edited hookpoint are the edited rows. `trunk` and `n_prompt` as in `logits`.

        Args:
            held_as: the type of the rows; None: the model's own. They are copied once, as they are computed: asking for
                the type here costs nothing.
        """
        names = {given: self.canonical(given) for given in hookpoints}
        if not names:
            return {}
        wanted = list(dict.fromkeys(names.values()))
        given = self.given(tokens, n_prompt=n_prompt)
        rows = self._run(given, reads=wanted, edits=edits, tally=tally, stop=True, trunk=trunk, held_as=held_as).rows
        return {given: rows[name] for given, name in names.items()}

    @torch.no_grad()
    def logits(
        self,
        tokens: Tokens,
        edits: Sequence[Edit | PassEdits] = (),
        *,
        tally: EditTally | None = None,
        trunk: Trunk | None = None,
        n_prompt: Sequence[int] | None = None,
    ) -> Float[Tensor, "batch position vocab"]:
        """Next-token logits at every position, with `edits` applied.

        Args:
            trunk: of an untouched pass over the same tokens; its layers do not run again. The logits are the same to the bit.
            n_prompt: how many of each text's tokens are its prompt, for edits that ask; None: all of them.

        Raises:
            HookpointError: an edit of what the trunk has behind it. ModelError: a trunk of other tokens.
        """
        given = self.given(tokens, n_prompt=n_prompt)
        logits: Tensor = self._run(given, edits=edits, tally=tally, trunk=trunk).output.logits
        return logits

    @torch.no_grad()
    def untouched(self, tokens: Tokens, *, reads: Sequence[str] = (), changes: Sequence[str] = ()) -> Untouched:
        """One pass with nothing changed: next-token logits, and rows at `reads`, keyed by the names as given.

        Args:
            changes: hookpoints that passes over the same tokens are going to change: they can begin at its trunk.

        Raises:
            ModelError: the model stands under edits.
        """
        if self._standing:
            raise ModelError(f"{self.name}: it is steered, so no pass of it is untouched; leave the `with` first")
        given = self.given(tokens)
        names = {given: self.canonical(given) for given in reads}
        n_layers = min((layers_before(self.canonical(name)) for name in changes), default=0)
        wanted = list(dict.fromkeys(names.values()))
        if n_layers == 0 or self._trunk_is_proven.get(n_layers) is False:
            result, trunk = self._run(given, reads=wanted), None
        else:
            with recording(self._anatomy.blocks[n_layers - 1]) as outputs:
                result = self._run(given, reads=wanted)
            trunk = Trunk(tokens, n_layers, outputs[0]) if len(outputs) == 1 else None
        logits: Tensor = result.output.logits
        is_usable = trunk is not None and self._prove(trunk, logits)
        return Untouched(
            logits, {given: result.rows[name] for given, name in names.items()}, trunk if is_usable else None
        )

    def _prove(self, trunk: Trunk, logits: Tensor) -> bool:
        """Does a pass that begins at a trunk give the same bits? Tried once: blocks may hand on more than what they return.

        A pass over other tokens comes between, so that what blocks might remember of the last one is not of these.
        """
        if trunk.n_layers not in self._trunk_is_proven:
            self._run(self.given(trunk.tokens.flip(1)))
            again = self._run(self.given(trunk.tokens), trunk=trunk).output.logits
            self._trunk_is_proven[trunk.n_layers] = torch.equal(again, logits)
        return self._trunk_is_proven[trunk.n_layers]

    @torch.no_grad()
    def unembed(self, rows: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows vocab"]:
        """Vocabulary logits of residual-stream rows: final norm where there is one, unembedding, logit scale and soft cap.

        Of the stream leaving the last layer these are the model's own logits.
        """
        return self._anatomy.unembed(rows.to(device=self.device, dtype=self.dtype))

    @contextmanager
    def under(self, edits: PassEdits) -> Iterator[None]:
        """Everything run inside the `with` runs under these edits, before any that are given with a call."""
        self._standing.append(edits)
        try:
            yield
        finally:
            self._standing.remove(edits)

    def is_under(self, edits: PassEdits) -> bool:
        """Does everything run under these edits at the moment?"""
        return any(each is edits for each in self._standing)

    @torch.no_grad()
    def generate(
        self,
        tokens: Tokens,
        *,
        max_new_tokens: int,
        edits: Sequence[Edit | PassEdits] = (),
        temperature: float = 0.0,
        seed: int | Sequence[int] = 0,
        use_cache: bool = True,
        stop_tokens: Sequence[int] = (),
        tally: EditTally | None = None,
        on_token: Callable[[Int[Tensor, " batch"]], None] | None = None,
        padding: Sequence[int] | None = None,
    ) -> Int[Tensor, "batch longer"]:
        """`tokens` continued by at most `max_new_tokens`, with `edits` applied at every position of every step.

        Temperature 0 is greedy (ties: the lowest id). Otherwise row b's token at step s is drawn by a number keyed by
        (seed, b, s), so it does not depend on the batch's size or on max_new_tokens. The key-value cache changes speed,
        not text. A sequence that wrote a stop token repeats it to the end; all stopped ends the call. `on_token` gets
        each step's tokens as they are made.

        Args:
            seed: one for all; or one for each row, which then writes what it would write alone.
            padding: for each row how many of its first tokens are none of its text (any token will do): prompts of several
                lengths end together this way. It is never seen, and edits leave it alone.
        """
        self._check_length(tokens.shape[1] + max_new_tokens, "prompt and continuation")
        n_prompt = [tokens.shape[1] - each for each in padding] if padding else [tokens.shape[1]] * len(tokens)
        step = partial(self._step, edits=edits, tally=tally, use_cache=use_cache, n_prompt=n_prompt, padding=padding)
        return generate(
            step,
            tokens.to(self.device),
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            seed=seed,
            use_cache=use_cache,
            stop_tokens=stop_tokens,
            on_token=on_token,
        )

    def _step(
        self,
        ids: Tensor,
        cache: TextCache | None,
        first_position: int,
        *,
        edits: Sequence[Edit | PassEdits],
        tally: EditTally | None,
        use_cache: bool,
        n_prompt: Sequence[int],
        padding: Sequence[int] | None,
    ) -> tuple[Tensor, TextCache | None]:
        """Logits after the last of `ids`, and the cache that now holds them too."""
        if not use_cache:
            given = self._given(ids, None, n_prompt, padding)
            return self._run(given, edits=edits, tally=tally).output.logits[:, -1], None
        return self.step(ids, cache, edits=edits, tally=tally, n_prompt=n_prompt, padding=padding)

    @torch.no_grad()
    def step(
        self,
        tokens: Tokens,
        cache: TextCache | None = None,
        *,
        edits: Sequence[Edit | PassEdits] = (),
        tally: EditTally | None = None,
        n_prompt: Sequence[int] | None = None,
        padding: Sequence[int] | None = None,
    ) -> tuple[Float[Tensor, "batch vocab"], TextCache]:
        """Logits after the last of `tokens`, and the cache that now holds them too. What generation is made of.

        Args:
            cache: of the texts that `tokens` continue. `n_prompt` and `padding` are then its own.
            n_prompt, padding: as in `logits` and `generate`, where a text begins.

        Raises:
            ModelError: the cache was made under other edits, is of another number of texts, or has gone on since.
        """
        given = self._given(tokens, cache, n_prompt, padding)
        under = self._under(edits, given)
        if cache is not None:
            cache.check(given, under)
        options = {"past_key_values": None if cache is None else cache.held, "use_cache": True}
        output = self._run(given, edits=edits, tally=tally, options=options).output
        whole = given.tokens if cache is None else torch.cat([cache.tokens, given.tokens], dim=1)
        return output.logits[:, -1], TextCache(
            whole, given.padding, given.n_prompt, given.begins, under, output.past_key_values
        )

    def given(self, tokens: Tokens, *, n_prompt: Sequence[int] | None = None) -> PassTokens:
        """Whole texts as one pass runs them.

        Raises:
            ModelError: tokens that are none of its vocabulary, too many, or another number of prompts than texts.
        """
        return self._given(tokens, None, n_prompt, None)

    def _given(
        self, tokens: Tokens, cache: TextCache | None, n_prompt: Sequence[int] | None, padding: Sequence[int] | None
    ) -> PassTokens:
        """What a pass over these tokens runs. Checks them."""
        self._check_tokens(tokens)
        ids = tokens.to(self.device).long()
        if cache is not None:
            self._check_length(cache.tokens.shape[1] + tokens.shape[1], "what is cached and what is to follow")
            return PassTokens(ids, cache.tokens.shape[1], cache.padding, cache.n_prompt, cache.begins)
        n, length = tokens.shape
        before = tuple(padding) if padding else (0,) * n
        own = tuple(n_prompt) if n_prompt is not None else tuple(length - each for each in before)
        for what, numbers in (("padding", before), ("n_prompt", own)):
            if len(numbers) != n or not all(0 <= each <= length for each in numbers):
                raise ModelError(
                    f"{self.name}: {what} {list(numbers)[:8]}: one number from 0 to {length} for each of {n} texts"
                )
        if max(before) == length:
            raise ModelError(f"{self.name}: padding {length}: nothing of that text is left")
        begins = [0] * n if self.bos_id is None else self._begin(ids, before)
        return PassTokens(ids, 0, before, own, tuple(begins))

    def _begin(self, ids: Tensor, padding: tuple[int, ...]) -> list[int]:
        column = torch.tensor(padding, device=ids.device)
        first: list[int] = ids.gather(1, column[:, None])[:, 0].tolist()
        return [int(token == self.bos_id) for token in first]

    def _under(self, edits: Sequence[Edit | PassEdits], given: PassTokens) -> tuple[tuple[object, ...], ...]:
        """For each row all that is done to it."""
        found: list[tuple[object, ...]] = [()] * len(given.tokens)
        for each in (*self._standing, *edits):
            keys: Sequence[object] = [each] * len(found) if isinstance(each, Edit) else each.keys(given)
            found = [(*before, key) if key else before for before, key in zip(found, keys, strict=True)]
        return tuple(found)

    def _run(
        self,
        given: PassTokens,
        *,
        reads: Sequence[str] = (),
        edits: Sequence[Edit | PassEdits] = (),
        tally: EditTally | None = None,
        stop: bool = False,
        options: dict[str, Any] | None = None,
        trunk: Trunk | None = None,
        held_as: torch.dtype | None = None,
    ) -> Pass:
        tokens = given.tokens
        flat = [
            edit
            for each in (*self._standing, *edits)
            for edit in ([each] if isinstance(each, Edit) else each.of_pass(given))
        ]
        named = [Edit(self.canonical(edit.hookpoint), edit.change) for edit in flat]
        self._check_trunk(trunk, tokens, [*(edit.hookpoint for edit in named), *reads])
        options = (options or {"use_cache": False}) | self._masked(given)
        with beginning_at(self._anatomy.blocks, trunk):
            result = run_hooked(
                lambda: self.hf(input_ids=tokens, **options),
                self._anatomy.sites,
                shape=(tokens.shape[0], tokens.shape[1]),
                reads=reads,
                edits=named,
                first_position=given.first,
                stop=stop,
                held_as=held_as,
            )
        if tally is not None:
            tally.add(tokens.numel(), result.n_edited)
        return result

    def _masked(self, given: PassTokens) -> dict[str, Any]:
        """What keeps padding out of sight; nothing where there is none."""
        if not any(given.padding):
            return {}
        columns = torch.arange(given.first + given.tokens.shape[1], device=given.tokens.device)
        seen = columns >= torch.tensor(given.padding, device=columns.device)[:, None]
        positions = {"position_ids": given.positions.clamp(min=0)} if self._takes_positions else {}
        return {"attention_mask": seen.long()} | positions

    def _check_trunk(self, trunk: Trunk | None, tokens: Tensor, hookpoints: Sequence[str]) -> None:
        if trunk is None:
            return
        if not torch.equal(trunk.tokens, tokens):
            raise ModelError(f"{self.name}: the trunk is of other tokens; make one of these with `untouched`")
        for name in hookpoints:
            if layers_before(name) < trunk.n_layers:
                raise HookpointError(
                    f"{name}: the trunk has {trunk.n_layers} layers behind it, this place among them; "
                    "name it in `changes` when the trunk is made"
                )

    def _check_tokens(self, tokens: Tensor) -> None:
        if tokens.ndim != 2 or tokens.is_floating_point() or tokens.numel() == 0:
            raise ModelError(
                f"{self.name}: tokens must be integers of shape [batch, position], at least one; "
                f"got {tokens.dtype} {tuple(tokens.shape)}"
            )
        self._check_length(tokens.shape[1], "tokens")
        low, high = int(tokens.min()), int(tokens.max())
        if low < 0 or high >= self.vocab_size:
            raise ModelError(
                f"{self.name}: token {low if low < 0 else high} is outside its vocabulary (0-{self.vocab_size - 1}); "
                "was the text tokenized for another model?"
            )

    def _check_length(self, n_positions: int, what: str) -> None:
        if self.context is not None and n_positions > self.context:
            raise ModelError(
                f"{self.name}: {what} take {n_positions} positions, its context has {self.context}; shorten them"
            )


def _context(text_config: Any) -> int | None:
    for key in ("max_position_embeddings", "max_seq_len", "seq_length"):
        value = getattr(text_config, key, None)
        if isinstance(value, int) and value > 0:
            return value
    return None
