"""A loaded language model whose hookpoints are read and written by name. Loading is load.py's, family facts are
families.py's, what it may be run over is intake.py's."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import xxhash
from jaxtyping import Float, Int
from torch import Tensor, nn

from mohole.errors import HookpointError, ModelError
from mohole.model.anatomy import Heads, find_anatomy
from mohole.model.families import Layout
from mohole.model.generate import generate
from mohole.model.hookpoints import all_hookpoints, parse_hookpoint
from mohole.model.hooks import Edit, EditTally, Pass, Site, run_hooked
from mohole.model.intake import Intake, stated_context
from mohole.model.passes import PassEdits, PassTokens, TextCache, edits_by_row, masks
from mohole.model.source import fingerprint
from mohole.model.tokenizer import Tokenizer
from mohole.model.trunk import Trunk, Untouched, beginning_at, layers_before, recording

if TYPE_CHECKING:
    from mohole.model.self_test import SelfTest

Tokens = Int[Tensor, "batch position"]


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
        bos_id: int | None = tokenizer.bos_id if tokenizer else text_config.bos_token_id
        self._intake = Intake(name, self.vocab_size, stated_context(text_config), bos_id)

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
    def context(self) -> int | None:
        """Positions the model was made for; None if it states none."""
        return self._intake.context

    @property
    def bos_id(self) -> int | None:
        """Id of the begin-of-text token; None if it has none."""
        return self._intake.bos_id

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
        if hookpoint in self._anatomy.sites:  # as each edit of each pass is named
            return hookpoint
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
        self._anatomy = self._anatomy.without_z(reason)

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
        self._intake.check_length(tokens.shape[1] + max_new_tokens, "prompt and continuation")
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
            given = self._intake.whole(ids, self.device, n_prompt=n_prompt, padding=padding)
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
        if cache is None:
            given = self._intake.whole(tokens, self.device, n_prompt=n_prompt, padding=padding)
        else:
            given = self._intake.further(tokens, self.device, cache)
        under = edits_by_row((*self._standing, *edits), given)
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
        return self._intake.whole(tokens, self.device, n_prompt=n_prompt)

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
        named = [self._named(edit) for edit in flat]
        if trunk is not None:
            trunk.check(tokens, [*(edit.hookpoint for edit in named), *reads])
        options = (options or {"use_cache": False}) | masks(given, positions=self._takes_positions)
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

    def _named(self, edit: Edit) -> Edit:
        name = self.canonical(edit.hookpoint)
        return edit if name == edit.hookpoint else replace(edit, hookpoint=name)
