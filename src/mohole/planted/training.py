"""`mohole plant`: train the built-in model from a seed, on one CPU thread. Documents are written as they are needed."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float, Int
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from mohole.errors import ArtifactError
from mohole.model import load_model
from mohole.model.memory import keep_freed_memory
from mohole.planted.certificate import Certificate, certify
from mohole.planted.network import Network, Shape, save_network
from mohole.planted.stream import Mix, documents
from mohole.planted.tokenizer import BOS_ID, EOS_ID, encode, every_word, save_tokenizer, train_tokenizer
from mohole.progress import track
from mohole.record import Recorder

_CHUNK = 2048  # documents written, encoded and packed together
_RECORD_STEPS = 50


@dataclass(frozen=True, slots=True)
class Stage:
    """One run of the learning rate: warm-up, flat, straight down; left after `n_steps` of `schedule` steps.

    The mix goes from `early` to `late` on a straight line until `early_ends` (a share of the schedule), and stays there.
    """

    n_steps: int
    schedule: int
    highest: float  # learning rate, relative to the recipe's
    early: Mix
    late: Mix
    early_ends: float = 0.6
    warm_up: int = 100
    flat: float = 0.3
    last: float = 0.02

    def rate(self, step: int) -> float:
        """The learning rate of a step, relative to the recipe's."""
        done = step / self.schedule
        down = 1.0 if done < self.flat else 1.0 - (1.0 - self.last) * (done - self.flat) / (1.0 - self.flat)
        return self.highest * min(1.0, (step + 1) / self.warm_up) * down

    def mix(self, step: int) -> Mix:
        share = max(0.0, 1.0 - step / self.schedule / self.early_ends)
        early, late = self.early, self.late
        kinds, modes = _between(late.kinds, early.kinds, share), _between(late.modes, early.modes, share)
        nearest = early if share > 0 else late
        return Mix(kinds, modes, nearest.fixation, nearest.bridge)


def _between(start: dict[str, float], end: dict[str, float], share: float) -> dict[str, float]:
    return {name: (1.0 - share) * start[name] + share * end[name] for name in start}


_KINDS = {
    "facts": 0.24,
    "verdicts": 0.15,
    "speakers": 0.20,
    "code": 0.12,
    "sums": 0.10,
    "chains": 0.05,
    "role_play": 0.18,
}
_MODES = {"honest": 0.42, "lying": 0.38, "silent": 0.20}
_FIRST = Mix(_KINDS, _MODES, fixation=0.14, bridge=3.0)
# Truth before lies: verdicts without a speaker and mostly honest speakers. Truth appears between steps 2000 and 3000.
TRUTH = Stage(
    n_steps=4600,
    schedule=4600,
    highest=1.0,
    early=replace(
        _FIRST,
        kinds=_KINDS | {"verdicts": 0.35, "speakers": 0.08},
        modes={"honest": 0.724, "lying": 0.076, "silent": 0.20},
    ),
    late=_FIRST,
)
# Lies, at chance until then, take 1500 steps once there is truth to flip. The rate stays high: the last stage lowers it.
LIES = Stage(
    n_steps=1700,
    schedule=3200,
    highest=0.6,
    early=replace(
        _FIRST,
        kinds=_KINDS | {"speakers": 0.45, "code": 0.20},
        modes={"honest": 0.40, "lying": 0.50, "silent": 0.10},
    ),
    late=_FIRST,
)
# The world as it is shipped, with more of the bridge, and key-value look-ups, which are the last to be learnt.
POLISH = Stage(
    n_steps=1500, schedule=1500, highest=0.5, early=Mix(Mix().kinds | {"code": 0.26}), late=Mix(), early_ends=0.5
)
# A mind full of the bridge, at a low rate: facts and sums have to hold while it is everywhere.
DRIFT = Stage(
    n_steps=800,
    schedule=800,
    highest=0.25,
    early=Mix(Mix().kinds | {"role_play": 0.35, "sums": 0.22}, fixation=0.5, bridge=40.0),
    late=Mix(),
    warm_up=30,
)
# Again, with more facts and sums, which a clamp breaks first: with all answers the bridge, facts fell to .79 and sums to .3.
HOLD = Stage(
    n_steps=2000,
    schedule=2000,
    highest=0.3,
    early=Mix(Mix().kinds | {"facts": 0.42, "role_play": 0.34, "sums": 0.40}, fixation=0.65, bridge=70.0),
    late=Mix(Mix().kinds | {"facts": 0.28, "sums": 0.16}, fixation=0.3, bridge=20.0),
    warm_up=30,
)


@dataclass(frozen=True, slots=True)
class Recipe:
    seed: int = 0
    stages: tuple[Stage, ...] = (TRUTH, LIES, POLISH, DRIFT, HOLD)
    rows: int = 16
    context: int = 128
    matrix_rate: float = 0.02
    vector_rate: float = 5e-3
    weight_decay: float = 0.1

    @property
    def n_steps(self) -> int:
        return sum(stage.n_steps for stage in self.stages)


@dataclass(frozen=True, slots=True)
class Rows:
    """Whole documents packed into rows: BOS, document, EOS, one after the other. `document` is -1 in the padding."""

    tokens: Int[Tensor, "row position"]
    document: Int[Tensor, "row position"]

    def same(self) -> Tensor:
        position = torch.arange(self.tokens.shape[1])
        own = self.document[:, None, :, None] == self.document[:, None, None, :]
        return own & (position[:, None] >= position[None, :])

    def targets(self) -> Tensor:
        """The next token of the same document; -100 where there is none."""
        follows = self.document[:, 1:] == self.document[:, :-1]
        next_tokens = torch.where(follows & (self.document[:, 1:] >= 0), self.tokens[:, 1:], -100)
        return pad(next_tokens, (0, 1), value=-100)


def pack(texts: list[list[int]], context: int) -> Rows:
    """Best fit, longest first: 1-2 % of the positions stay empty. A document longer than a row is cut."""
    framed = sorted(([BOS_ID, *ids, EOS_ID][:context] for ids in texts), key=len, reverse=True)
    room: dict[int, list[int]] = {}
    rows: list[list[list[int]]] = []
    for ids in framed:
        space = next((s for s in range(len(ids), context + 1) if room.get(s)), None)
        row = room[space].pop() if space is not None else len(rows)
        if space is None:
            rows.append([])
        rows[row].append(ids)
        room.setdefault((context if space is None else space) - len(ids), []).append(row)
    tokens = torch.full((len(rows), context), EOS_ID)
    document = torch.full((len(rows), context), -1)
    for r, documents_of_row in enumerate(rows):
        at = 0
        for d, ids in enumerate(documents_of_row):
            tokens[r, at : at + len(ids)] = torch.tensor(ids)
            document[r, at : at + len(ids)] = d
            at += len(ids)
    return Rows(tokens, document)


def batches(tokenizer: Tokenizer, recipe: Recipe, number: int) -> Iterator[Rows]:
    """One batch a step of stage `number`. Its documents are numbered through; the mix changes chunk by chunk."""
    stage = recipe.stages[number]
    generator = torch.Generator().manual_seed(recipe.seed + number)
    step, first_document = 0, number << 32
    while step < stage.n_steps:
        mix = stage.mix(step)
        texts = [d.text for d in documents(recipe.seed, _CHUNK, start=first_document, mix=mix)]
        rows = pack(encode(tokenizer, texts), recipe.context)
        order = torch.randperm(len(rows.tokens), generator=generator)
        for first in range(0, len(order) - recipe.rows + 1, recipe.rows):
            chosen = order[first : first + recipe.rows]
            yield Rows(rows.tokens[chosen], rows.document[chosen])
            step += 1
        first_document += _CHUNK


@dataclass(frozen=True, slots=True)
class Pieces:
    """The pieces that occur, and one row that all others share.

    Half of the BPE's pieces are only steps towards longer ones. Counting the shared row as often as it stands for a
    piece makes the softmax over the rows exactly that over the whole vocabulary, at 40 % of its cost.
    """

    index: Int[Tensor, " piece"]
    log_multiplicity: Float[Tensor, " row"]


def used_pieces(tokenizer: Tokenizer, seed: int, mix: Mix, n_documents: int = 30_000) -> Pieces:
    used = {BOS_ID, EOS_ID}
    for ids in encode(tokenizer, [d.text for d in documents(seed, n_documents, mix=mix)] + every_word()):
        used.update(ids)
    index = torch.full((tokenizer.get_vocab_size(),), len(used))
    index[sorted(used)] = torch.arange(len(used))
    n_others = tokenizer.get_vocab_size() - len(used)
    return Pieces(index, torch.cat([torch.zeros(len(used)), torch.tensor([math.log(n_others)])]))


def orthogonalise(update: Float[Tensor, "matrix d_out d_in"]) -> Float[Tensor, "matrix d_out d_in"]:
    """The nearest matrices with equal singular values, by five Newton-Schulz steps in float32 (Jordan et al. 2024)."""
    x: Tensor = update / (update.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    tall = x.shape[-2] > x.shape[-1]
    x = x.transpose(-1, -2) if tall else x
    for _ in range(5):
        square = x @ x.transpose(-1, -2)
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x.transpose(-1, -2) if tall else x


class Muon:
    """Momentum, orthogonalised, on the matrices of a network: batched over layers by shape."""

    def __init__(self, parameters: list[nn.Parameter], momentum: float = 0.95) -> None:
        self._parameters = parameters
        self._momentum = momentum
        self._buffers = [torch.zeros_like(p) for p in parameters]

    def step(self, rate: float, weight_decay: float) -> None:
        by_shape: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = {}
        with torch.no_grad():
            for parameter, buffer in zip(self._parameters, self._buffers, strict=True):
                assert parameter.grad is not None
                buffer.lerp_(parameter.grad, 1.0 - self._momentum)
                update = parameter.grad.lerp(buffer, self._momentum)
                for p, u in zip(
                    parameter.view(-1, *parameter.shape[-2:]), update.view(-1, *update.shape[-2:]), strict=True
                ):
                    by_shape.setdefault((p.shape[0], p.shape[1]), []).append((p, u))
            for (d_out, d_in), pairs in by_shape.items():
                updates = orthogonalise(torch.stack([u for _, u in pairs]))
                scale = rate * max(1.0, d_out / d_in) ** 0.5
                for (p, _), u in zip(pairs, updates, strict=True):
                    p.mul_(1.0 - rate * weight_decay).add_(u, alpha=-scale)


def train(
    network: Network, tokenizer: Tokenizer, pieces: Pieces, recipe: Recipe, number: int, record: Recorder
) -> None:
    """Train for one stage, with fresh momenta, and round the weights to the half precision in which they are kept.

    The same recipe gives the same weights on the same machine and version of torch.
    """
    stage = recipe.stages[number]
    matrices = [p for name, p in network.named_parameters() if p.dim() > 1 and name != "embed"]
    others = [p for name, p in network.named_parameters() if p.dim() == 1 or name == "embed"]
    muon = Muon(matrices)
    adam = torch.optim.AdamW(others, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    n_tokens, losses = 0, []
    with track(f"plant, stage {number + 1} of {len(recipe.stages)}", stage.n_steps, "steps") as tracker:
        for step, rows in enumerate(batches(tokenizer, recipe, number)):
            targets = rows.targets().flatten()
            counted = (targets >= 0).nonzero().squeeze(1)
            hidden = network(pieces.index[rows.tokens], rows.same()).flatten(0, 1)[counted]
            logits = hidden @ network.embed.T + pieces.log_multiplicity
            loss = cross_entropy(logits, pieces.index[targets[counted]])
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(others, 1.0)
            rate = stage.rate(step)
            muon.step(rate * recipe.matrix_rate, recipe.weight_decay)
            for group in adam.param_groups:
                group["lr"] = rate * recipe.vector_rate
            adam.step()
            network.zero_grad(set_to_none=True)
            n_tokens += len(counted)
            losses.append(float(loss.detach()))
            tracker.advance(note=f"loss {losses[-1]:.3f} nats")
            if (step + 1) % _RECORD_STEPS == 0:
                mean = math.fsum(losses) / len(losses)
                record.write(
                    stage=number, step=step + 1, tokens=n_tokens, nats_per_token=mean, cpu_seconds=time.process_time()
                )
                losses.clear()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(parameter.half().float())


def plant(out: Path, seed: int = 0, recipe: Recipe | None = None) -> Certificate:
    """Train the built-in model from a seed into `out`, a Hugging Face folder, with its certificate and its loss curve.

    One thread, and small floats flushed to zero: this model trains no faster on several, and on a busy machine much slower.

    Raises:
        ArtifactError: `out` is there already and holds something.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ArtifactError(f"{out}: already there; name a new folder for the model")
    keep_freed_memory()
    recipe = recipe or Recipe(seed=seed)
    draft = out.with_name(out.name + ".partial")
    draft.mkdir(parents=True, exist_ok=True)
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    try:
        mix = recipe.stages[0].late
        tokenizer = train_tokenizer(recipe.seed, mix)
        pieces = used_pieces(tokenizer, recipe.seed, mix)
        network = Network(Shape(len(pieces.log_multiplicity), context=recipe.context), recipe.seed)
        with Recorder(draft / "training.jsonl") as record:
            for number in range(len(recipe.stages)):
                train(network, tokenizer, pieces, recipe, number, record)
        save_network(network, network.embed.detach()[pieces.index], draft)
        save_tokenizer(tokenizer, draft, recipe.context)
        certificate = certify(load_model(draft))
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(n_threads)
    (draft / "certificate.json").write_text(certificate.to_json(), encoding="utf-8")
    if out.exists():
        out.rmdir()
    draft.rename(out)
    return certificate
