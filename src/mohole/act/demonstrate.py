"""The steering demonstration: each prompt continued without and with one latent clamped, side by side. One JSON file."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from mohole import artifact, config
from mohole.act.check import check
from mohole.act.interventions import Clamp
from mohole.act.sources import Maxima
from mohole.act.steering import Steered, steer
from mohole.dictionary import Dictionary
from mohole.errors import ArtifactError, ConfigError, StageError
from mohole.model import LanguageModel
from mohole.progress import track
from mohole.record import read_json, write_json

STEERING_FILE = "steering.json"
DEFAULT_TIMES_MAX = 1.0

ROUNDINGS = 64  # an edited row may differ from the exact one by this many roundings of the model's dtype


@dataclass(frozen=True, slots=True)
class Comparison:
    """A prompt and its two continuations, drawn with the same random numbers."""

    prompt: str
    plain: str
    steered: str
    n_tokens: int
    """Tokens of text that the steered model ran: the prompt and all but the last written."""
    n_fired: int
    """Tokens at which the clamp fired; equal to `n_tokens`."""


@dataclass(frozen=True, slots=True)
class Demonstration:
    """What steering one latent does to some texts."""

    hookpoint: str
    latent: int
    label: str
    chosen_by: str
    """Why this latent: named by the user, or how it did in which trial."""
    maximum: float
    """The latent's largest activation on the corpus, in the latent's own units."""
    times_max: float
    """It was held at times_max x maximum, at every token."""
    temperature: float
    row_error: float
    """Largest distance of an edited row from x + (c - f) d, relative to the row: rounding only."""
    reads_back: float
    """Share of the prompts' tokens at which encoding the edited row reads the clamp's value within 5 %."""
    generations: tuple[Comparison, ...]


def demonstrate(
    out: Path,
    model: LanguageModel,
    dictionary: Dictionary,
    catalogue: Maxima,
    settings: config.Steer,
    *,
    latent: int,
    label: str,
    chosen_by: str,
    prompts: Sequence[str],
    seed: int,
) -> None:
    """Write the demonstration's file into `out`.

    Raises:
        ConfigError: no prompt.
        StageError: a dead latent, a clamp that did not fire for every token, or rows that did not move exactly as asked.
    """
    if not prompts or not all(prompts):
        raise ConfigError("steer.prompts: empty, or one of them is; give texts to continue")
    times_max = settings.clamp.times_max if settings.clamp else DEFAULT_TIMES_MAX
    steered = steer(model, dictionary, [Clamp(latent, times_max=times_max)], catalogue=catalogue)
    comparisons, errors, reads = [], [], []
    with track("steer", len(prompts), "prompts") as tracker:
        for prompt in prompts:
            error, read = _check(steered, prompt)
            errors.append(error)
            reads.append(read)
            comparisons.append(_compare(steered, prompt, settings, seed))
            tracker.advance()
    demonstration = Demonstration(
        hookpoint=dictionary.hookpoint,
        latent=latent,
        label=label,
        chosen_by=chosen_by,
        maximum=float(catalogue.maximum[latent]),
        times_max=times_max,
        temperature=settings.temperature,
        row_error=max(errors),
        reads_back=sum(reads) / len(reads),
        generations=tuple(comparisons),
    )
    write_json(out / STEERING_FILE, asdict(demonstration))


def read_steering(path: Path | str) -> Demonstration:
    """Open the finished demonstration at `path`.

    Raises:
        ArtifactError: missing, unfinished, damaged, or of another kind.
    """
    path = Path(path)
    artifact.open_artifact(path, kind="steering")
    try:
        raw = read_json(path / STEERING_FILE, "generations")
        return Demonstration(**raw | {"generations": tuple(Comparison(**item) for item in raw["generations"])})
    except TypeError as error:
        raise ArtifactError(f"{path}: not a steering demonstration mohole can read ({error}); make it again") from None


def _check(steered: Steered, prompt: str) -> tuple[float, float]:
    (found,) = check(steered, steered.model.tokenizer.prompt(prompt))
    limit = ROUNDINGS * torch.finfo(steered.model.dtype).eps
    if found.row_error > limit:
        raise StageError(
            f"{found.hookpoint}: edited rows are off by {found.row_error:.2g} of their length (rounding allows {limit:.2g}), "
            'so the clamp is not exact here; use model.dtype = "float32"'
        )
    assert found.reads_back is not None  # an autoencoder's latents are read where they are written
    return found.row_error, found.reads_back


def _compare(steered: Steered, prompt: str, settings: config.Steer, seed: int) -> Comparison:
    tokenizer = steered.model.tokenizer
    tokens = tokenizer.prompt(prompt)
    stop_tokens = [] if tokenizer.eos_id is None else [tokenizer.eos_id]
    room = settings.max_new_tokens
    plain = steered.model.generate(
        tokens, max_new_tokens=room, temperature=settings.temperature, seed=seed, stop_tokens=stop_tokens
    )
    changed = steered.generate(
        tokens, max_new_tokens=room, temperature=settings.temperature, seed=seed, stop_tokens=stop_tokens
    )
    n_prompt = tokens.shape[1]
    return Comparison(
        prompt=prompt,
        plain=_text(steered.model, plain[0].tolist(), n_prompt),
        steered=_text(steered.model, changed.tokens[0].tolist(), n_prompt),
        n_tokens=changed.n_tokens,
        n_fired=changed.n_fired,
    )


def _text(model: LanguageModel, tokens: list[int], n_prompt: int) -> str:
    """What was written after the prompt, without a closing end-of-text token."""
    tokenizer = model.tokenizer
    first = 1 if tokens and tokens[0] == tokenizer.bos_id else 0
    if len(tokens) > n_prompt and tokens[-1] == tokenizer.eos_id:
        tokens = tokens[:-1]
    prompt, whole = tokenizer.decode(tokens[first:n_prompt]), tokenizer.decode(tokens[first:])
    return whole.removeprefix(prompt) if whole.startswith(prompt) else tokenizer.decode(tokens[n_prompt:])
