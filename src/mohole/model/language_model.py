"""A loaded language model whose hookpoints are read and written by name. Loading is load.py's, family facts are families.py's."""

from collections.abc import Callable, Sequence
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
from mohole.model.hooks import Edit, EditTally, Pass, run_hooked
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
        edits: Sequence[Edit] = (),
        *,
        tally: EditTally | None = None,
        trunk: Trunk | None = None,
        held_as: torch.dtype | None = None,
    ) -> dict[str, Float[Tensor, "batch position d"]]:
        """Rows at `hookpoints` for every token, none dropped, keyed by the names as given. Layers after the last one do not run.

        Rows at an edited hookpoint are the edited rows. `trunk` as in `logits`.

        Args:
            held_as: the type of the rows; None: the model's own. They are copied once, as they are computed: asking for
                the type here costs nothing.
        """
        names = {given: self.canonical(given) for given in hookpoints}
        if not names:
            return {}
        wanted = list(dict.fromkeys(names.values()))
        rows = self._run(tokens, reads=wanted, edits=edits, tally=tally, stop=True, trunk=trunk, held_as=held_as).rows
        return {given: rows[name] for given, name in names.items()}

    @torch.no_grad()
    def logits(
        self, tokens: Tokens, edits: Sequence[Edit] = (), *, tally: EditTally | None = None, trunk: Trunk | None = None
    ) -> Float[Tensor, "batch position vocab"]:
        """Next-token logits at every position, with `edits` applied.

        Args:
            trunk: of an untouched pass over the same tokens; its layers do not run again. The logits are the same to the bit.

        Raises:
            HookpointError: an edit of what the trunk has behind it. ModelError: a trunk of other tokens.
        """
        logits: Tensor = self._run(tokens, edits=edits, tally=tally, trunk=trunk).output.logits
        return logits

    @torch.no_grad()
    def untouched(self, tokens: Tokens, *, reads: Sequence[str] = (), changes: Sequence[str] = ()) -> Untouched:
        """One pass with nothing changed: next-token logits, and rows at `reads`, keyed by the names as given.

        Args:
            changes: hookpoints that passes over the same tokens are going to change: they can begin at its trunk.
        """
        names = {given: self.canonical(given) for given in reads}
        n_layers = min((layers_before(self.canonical(name)) for name in changes), default=0)
        wanted = list(dict.fromkeys(names.values()))
        if n_layers == 0 or self._trunk_is_proven.get(n_layers) is False:
            result, trunk = self._run(tokens, reads=wanted), None
        else:
            with recording(self._anatomy.blocks[n_layers - 1]) as outputs:
                result = self._run(tokens, reads=wanted)
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
            self._run(trunk.tokens.flip(1))
            again = self._run(trunk.tokens, trunk=trunk).output.logits
            self._trunk_is_proven[trunk.n_layers] = torch.equal(again, logits)
        return self._trunk_is_proven[trunk.n_layers]

    @torch.no_grad()
    def unembed(self, rows: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows vocab"]:
        """Vocabulary logits of residual-stream rows: final norm where there is one, unembedding, logit scale and soft cap.

        Of the stream leaving the last layer these are the model's own logits.
        """
        return self._anatomy.unembed(rows.to(device=self.device, dtype=self.dtype))

    @torch.no_grad()
    def generate(
        self,
        tokens: Tokens,
        *,
        max_new_tokens: int,
        edits: Sequence[Edit] = (),
        temperature: float = 0.0,
        seed: int = 0,
        use_cache: bool = True,
        stop_tokens: Sequence[int] = (),
        tally: EditTally | None = None,
        on_token: Callable[[Int[Tensor, " batch"]], None] | None = None,
    ) -> Int[Tensor, "batch longer"]:
        """`tokens` continued by at most `max_new_tokens`, with `edits` applied at every position of every step.

        Temperature 0 is greedy (ties: the lowest id). Otherwise row b's token at step s is drawn by a number keyed by
        (seed, b, s), so it does not depend on the batch's size or on max_new_tokens. The key-value cache changes speed,
        not text. A sequence that wrote a stop token repeats it to the end; all stopped ends the call. `on_token` gets
        each step's tokens as they are made.
        """
        self._check_length(tokens.shape[1] + max_new_tokens, "prompt and continuation")

        return generate(
            partial(self._step, edits=edits, tally=tally, use_cache=use_cache),
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
        cache: Any,
        first_position: int,
        *,
        edits: Sequence[Edit],
        tally: EditTally | None,
        use_cache: bool,
    ) -> tuple[Tensor, Any]:
        """Logits after the last of `ids`, and the cache that now holds them too."""
        options = {"past_key_values": cache, "use_cache": use_cache}
        output = self._run(ids, edits=edits, tally=tally, first_position=first_position, options=options).output
        return output.logits[:, -1], output.past_key_values if use_cache else None

    def _run(
        self,
        tokens: Tensor,
        *,
        reads: Sequence[str] = (),
        edits: Sequence[Edit] = (),
        tally: EditTally | None = None,
        first_position: int = 0,
        stop: bool = False,
        options: dict[str, Any] | None = None,
        trunk: Trunk | None = None,
        held_as: torch.dtype | None = None,
    ) -> Pass:
        self._check_tokens(tokens)
        named = [Edit(self.canonical(edit.hookpoint), edit.change) for edit in edits]
        self._check_trunk(trunk, tokens, [*(edit.hookpoint for edit in named), *reads])
        ids = tokens.to(self.device).long()
        with beginning_at(self._anatomy.blocks, trunk):
            result = run_hooked(
                lambda: self.hf(input_ids=ids, **(options or {"use_cache": False})),
                self._anatomy.sites,
                shape=(tokens.shape[0], tokens.shape[1]),
                reads=reads,
                edits=named,
                first_position=first_position,
                stop=stop,
                held_as=held_as,
            )
        if tally is not None:
            tally.add(tokens.numel(), result.n_edited)
        return result

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
