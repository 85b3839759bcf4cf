"""From a request's body to what an engine is asked: the model that it names, its engine, the plan, the prompts."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from mohole.act import (
    NOTHING,
    Latent,
    LatentReading,
    Plan,
    Variant,
    open_variant,
    parse_interventions,
)
from mohole.engine import Ask, BatchingEngine, Counters, Engine, Sampling
from mohole.engine.batching import end_tokens
from mohole.errors import ArtifactError, ConfigError, MoholeError
from mohole.model import LanguageModel, Tokenizer
from mohole.model.chat import PLAIN_STOP, chat_tokens, has_template
from mohole.model.source import find_model
from mohole.serve.errors import short
from mohole.serve.models import Models
from mohole.serve.openai.asked import MOST_CHOICES, ChatAsked, CompletionAsked
from mohole.serve.openai.messages import turns_of
from mohole.serve.openai.names import Names, unknown
from mohole.serve.openai.refusals import NOT_SOON, OpenAIRefusal, as_refusal, refused_key
from mohole.serve.openai.settings import ChatSettings
from mohole.serve.openai.steering import RunSteering
from mohole.serve.runs import OpenRun, Served
from mohole.serve.turns import Turns
from mohole.version import __version__

_LONGEST_QUEUE = 512
_CHAT_TOKENS, _COMPLETION_TOKENS = 512, 16  # of an answer, where nothing is said
_SEED_BITS = 48  # of those that are drawn: a browser's numbers hold 53


@dataclass(frozen=True)
class Talk:
    """A request, worked out."""

    engine: Engine
    asks: tuple[Ask, ...]
    """One for each prompt."""
    tokenizer: Tokenizer
    model: str
    """As it was asked for."""
    fingerprint: str
    warnings: tuple[str, ...] = ()
    """What sweeps of the run have to say against the strengths that are asked for."""


class Talkers:
    """The runs' models, each with an engine from the first request on."""

    def __init__(self, served: Served, models: Models, settings: ChatSettings) -> None:
        self.names = Names(served)
        self._models, self._settings = models, settings
        self._turns = Turns(_LONGEST_QUEUE, "requests wait to be read")
        self._engines: dict[str, Engine] = {}
        self._steering: dict[str, RunSteering] = {}
        self.is_ending = False

    # --- requests

    async def talk(self, asked: ChatAsked | CompletionAsked) -> Talk:
        """What an engine is to be asked for a request. Loads the model where it is the first.

        Raises:
            OpenAIRefusal: an unknown model, one that is not here, or what cannot be meant for it.
        """
        self._need_open()
        run, variant = self.names.named(asked.model)
        if run.model_source is None:
            raise OpenAIRefusal(
                503,
                "model_unavailable",
                f"{run.name}: its model ({run.model_name}) is not on this machine; mohole serve RUN --model FOLDER names "
                "a folder that holds it",
                param="model",
                headers=NOT_SOON,
            )
        return await self._turns.take(lambda: self._worked_out(asked, run, variant))

    def _worked_out(self, asked: ChatAsked | CompletionAsked, run: OpenRun, variant: str | None) -> Talk:
        model = self._models.load(run)
        steering = self._steering.setdefault(run.name, RunSteering(run, model))
        plan, warnings = self._plan(asked, run, variant, steering)
        readings = _readings(asked, steering)
        prompts = _prompts(asked, model.tokenizer, model.vocab_size)
        asks = self._asks(asked, model, prompts, plan, readings)
        fingerprint = f"mohole-{__version__}-{(run.model_digest or '')[:12]}"
        engine = self._engine(run, model)
        self._need_open()  # an end that came while the model was being loaded has not met its engine
        return Talk(engine, asks, model.tokenizer, asked.model, fingerprint, warnings)

    def _need_open(self) -> None:
        if self.is_ending:
            raise OpenAIRefusal(503, "shutting_down", "the server is ending", headers={"Retry-After": "10"})

    def _engine(self, run: OpenRun, model: LanguageModel) -> Engine:
        digest = run.model_digest or ""
        if digest not in self._engines:
            self._engines[digest] = self._made(run, model)
        return self._engines[digest]

    def _made(self, run: OpenRun, model: LanguageModel) -> Engine:
        if self._settings.engine == "batching":
            return BatchingEngine(model, self._settings.limits, alone=self._models.alone(run))
        from mohole.engine.vllm import VllmEngine

        folder = str(find_model(run.model_source or "")[1])
        return VllmEngine.open(folder, model.tokenizer, end_tokens(model), self._settings.limits)

    def _plan(
        self, asked: ChatAsked | CompletionAsked, run: OpenRun, variant: str | None, steering: RunSteering
    ) -> tuple[Plan, tuple[str, ...]]:
        said = asked.steering
        if said is None and variant is None:
            return NOTHING, ()
        also = None if said is None else said.variant
        if variant is not None and also not in (None, variant):
            raise refused_key("steering.variant", f"{short(also)}: the model's name says another, {variant}")
        name, param = (also, "steering.variant") if variant is None else (variant, "model")
        opened = None if name is None else _variant(run, name, param, asked.model)
        try:
            interventions = parse_interventions((said.interventions if said else None) or [])
            return steering.plan(opened, interventions)
        except MoholeError as error:
            if isinstance(error, ArtifactError) and opened is not None:
                raise refused_key(param, str(error)) from None
            raise as_refusal(error, "steering.interventions") from None

    def _asks(
        self,
        asked: ChatAsked | CompletionAsked,
        model: LanguageModel,
        prompts: Sequence[Sequence[int]],
        plan: Plan,
        readings: tuple[LatentReading, ...],
    ) -> tuple[Ask, ...]:
        n, is_chat = asked.n or 1, isinstance(asked, ChatAsked)
        if n * len(prompts) > MOST_CHOICES:
            raise refused_key("prompt", f"{len(prompts)} prompts and n = {n}; {MOST_CHOICES} answers at most")
        seed = secrets.randbits(_SEED_BITS) if asked.seed is None else asked.seed
        temperature = 1.0 if asked.temperature is None else asked.temperature
        is_plain = is_chat and not has_template(model.tokenizer)
        return tuple(
            Ask(
                prompt=tuple(prompt),
                samplings=tuple(
                    Sampling(temperature, asked.top_p or 1.0, (seed + place * n + choice) % (1 << 64))
                    for choice in range(n)
                ),
                max_new_tokens=self._most_tokens(asked, model, len(prompt)),
                plan=plan,
                stop=(*asked.stops, PLAIN_STOP) if is_plain else asked.stops,
                n_top=asked.n_top,
                readings=readings,
                skips_space=is_plain,
                most_seconds=self._settings.most_seconds,
            )
            for place, prompt in enumerate(prompts)
        )

    def _most_tokens(self, asked: ChatAsked | CompletionAsked, model: LanguageModel, n_prompt: int) -> int:
        most = min(self._settings.most_tokens, self._settings.limits.most_tokens)
        wanted = asked.most_tokens
        if wanted is not None and wanted > most:
            raise refused_key("max_tokens", f"{wanted}: this server writes {most} at most")
        if wanted is None:
            wanted = min(most, _CHAT_TOKENS if isinstance(asked, ChatAsked) else _COMPLETION_TOKENS)
        context = min(model.context or self._settings.limits.most_tokens, self._settings.limits.most_tokens)
        if n_prompt >= context:
            param = "messages" if isinstance(asked, ChatAsked) else "prompt"
            message = f"{param}: {n_prompt} tokens, and the context is {context}; shorten what is asked"
            raise OpenAIRefusal(400, "context_length_exceeded", message, param=param)
        return min(wanted, context - n_prompt)

    # --- the end

    @property
    def counters(self) -> Counters:
        """Of all engines."""
        return sum((engine.counters for engine in list(self._engines.values())), Counters())

    def end(self, seconds: float) -> None:
        """Take no more; cut, with a word, what is not done in so many seconds. From any thread."""
        self.is_ending = True
        for engine in list(self._engines.values()):
            engine.end(seconds)

    def close(self) -> None:
        """Cut everything, and wait until nothing runs."""
        self.is_ending = True
        self._turns.close()
        for engine in self._engines.values():
            engine.close()


def _prompts(asked: ChatAsked | CompletionAsked, tokenizer: Tokenizer, vocab_size: int) -> list[list[int]]:
    if isinstance(asked, ChatAsked):
        try:
            tokens = chat_tokens(tokenizer, turns_of(asked.messages))
        except ConfigError as error:
            raise refused_key("messages", str(error)) from None
        return [[int(token) for token in tokens[0]]]
    if not asked.prompts:
        raise refused_key("prompt", "nothing in it")
    found = [each if isinstance(each, list) else tokenizer.prompt(each)[0].tolist() for each in asked.prompts]
    if not all(found):
        raise refused_key("prompt", "an empty one; this model has no token to begin with")
    for each in found:
        if wrong := [token for token in each if not 0 <= token < vocab_size]:
            raise refused_key("prompt", f"{short(wrong[0])}: tokens of this model are 0 to {vocab_size - 1}")
    return found


def _readings(asked: ChatAsked | CompletionAsked, steering: RunSteering) -> tuple[LatentReading, ...]:
    try:
        return steering.readings([Latent(each.latent, each.hookpoint) for each in asked.readings or []])
    except MoholeError as error:
        raise as_refusal(error, "readings") from None


def _variant(run: OpenRun, name: str, param: str, model: str) -> Variant:
    try:
        return open_variant(run.folder, name)
    except ConfigError as error:
        raise unknown(model, str(error)) if param == "model" else refused_key(param, str(error)) from None
    except ArtifactError as error:
        raise refused_key(param, str(error)) from None
