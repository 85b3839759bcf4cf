"""An engine over vLLM, steered by the plug-in interp-engine (extra `vllm`). Neither speed nor texts are measured: no GPU here.

What was run under interventions is proved by the plug-in's own rows: every steered request also has the rows of one place that is
acted at captured in the worker, behind the interventions, and they must be as many as tokens were run. They are counted when the
last token is there, so until then a steered text is held back. A steered request has a `cache_salt` of its own, so that no block
of its cache is another's.

What the plug-in cannot say is refused by name (vllm_plan.py); readings are, too. vLLM adds up in another order for another batch,
so that here a text may differ from the one written alone where two tokens are as likely as rounding can tell.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

from mohole.act import Stamp
from mohole.engine.ask import Ask, Ended, Event, Likelihood, Reason, Written
from mohole.engine.engine import Counters, Limits
from mohole.engine.vllm_plan import WorkerSteering, worker_steering
from mohole.engine.writer import Writer
from mohole.errors import ConfigError, EngineError, ModelError, StageError
from mohole.model import Tokenizer
from mohole.model.generate import Sampling

_FOREVER = float("inf")


@runtime_checkable
class AsyncLLM(Protocol):
    """What is used of vLLM's engine."""

    def generate(self, prompt: Any, sampling_params: Any, request_id: str) -> AsyncIterator[Any]: ...

    async def collective_rpc(self, method: str, args: tuple[Any, ...] = ()) -> list[Any]: ...

    async def abort(self, request_id: str) -> None: ...

    def shutdown(self) -> None: ...


class VllmEngine:
    """See `Engine`."""

    def __init__(
        self,
        llm: AsyncLLM,
        tokenizer: Tokenizer,
        ends: frozenset[int],
        sampling_params: Callable[..., Any],
        decode: Callable[[Any], Mapping[Any, Any]],
        limits: Limits = Limits(),  # noqa: B008, it is frozen
    ) -> None:
        """Args:
        llm: made with the plug-in's worker extension.
        ends: tokens that end a text.
        sampling_params: vLLM's own class.
        decode: interp-engine's `decode_capture_payload`.
        """
        self._llm, self._tokenizer, self._ends = llm, tokenizer, ends
        self._sampling_params, self._decode, self._limits = sampling_params, decode, limits
        self._counters = Counters()
        self._n_open = 0
        self._end_at = _FOREVER

    @classmethod
    def open(cls, folder: str, tokenizer: Tokenizer, ends: frozenset[int], limits: Limits) -> "VllmEngine":
        """Load a model's folder into vLLM on this machine's GPUs.

        Raises:
            ModelError: vLLM or the plug-in is not installed.
        """
        try:
            from interp_engine import WORKER_EXTENSION_CLS, capture_engine_kwargs, decode_capture_payload
            from vllm import AsyncEngineArgs, SamplingParams
            from vllm.v1.engine.async_llm import AsyncLLM as Loaded
        except ImportError as error:
            raise ModelError(f"vllm: {error}; pip install 'mohole[vllm]', on a machine with CUDA") from None
        arguments = AsyncEngineArgs(model=folder, worker_extension_cls=WORKER_EXTENSION_CLS, **capture_engine_kwargs())
        loaded = Loaded.from_engine_args(arguments)
        return cls(loaded, tokenizer, ends, SamplingParams, decode_capture_payload, limits)

    async def answer(self, ask: Ask) -> AsyncGenerator[Event]:
        """See `Engine`."""
        if ask.readings:
            raise ConfigError("vllm: readings are not taken there; leave them out")
        begins = int(ask.prompt[0] == self._tokenizer.bos_id)
        steering = worker_steering(ask.plan, len(ask.prompt), begins)
        self._enter(len(ask.samplings))
        queue: asyncio.Queue[Event | Exception] = asyncio.Queue()
        tasks = [
            asyncio.create_task(self._pump(ask, number, steering, begins, queue))
            for number in range(len(ask.samplings))
        ]
        try:
            n_left = len(tasks)
            while n_left:
                event = await queue.get()
                if isinstance(event, Exception):
                    self._counters.n_failed += 1
                    raise event
                n_left -= isinstance(event, Ended)
                yield event
        finally:
            self._n_open -= len(ask.samplings)
            self._counters.n_cancelled += sum(not task.done() for task in tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _enter(self, n: int) -> None:
        if self._end_at < _FOREVER:
            raise EngineError("ending", "the server is ending")
        if self._n_open + n > self._limits.most_rows + self._limits.most_waiting:
            raise EngineError("full", f"{self._n_open} answers are being written or wait; ask again in a moment")
        self._n_open += n
        self._counters.n_asked += n

    async def _pump(
        self,
        ask: Ask,
        number: int,
        steering: WorkerSteering | None,
        begins: int,
        queue: "asyncio.Queue[Event | Exception]",
    ) -> None:
        try:
            async with aclosing(self._row(ask, number, steering, begins)) as events:
                async for event in events:
                    queue.put_nowait(event)
        except Exception as error:  # whatever it is, it is raised where the events are read
            queue.put_nowait(error)

    async def _row(self, ask: Ask, number: int, steering: WorkerSteering | None, begins: int) -> AsyncGenerator[Event]:
        request = f"mohole-{secrets.token_hex(8)}"
        writer = Writer(self._tokenizer, ask.prompt, ask.stop, skips_space=ask.skips_space)
        n_written, reason, is_done, rows = 0, "length", False, None
        held: list[Written] = []
        prompt: dict[str, Any] = {"prompt_token_ids": list(ask.prompt)}
        try:
            if steering is not None:
                prompt["cache_salt"] = request
                told = (request, list(steering.specs), list(steering.skipped), len(ask.prompt), steering.generated)
                await self._llm.collective_rpc("register_steering", args=told)
                await self._llm.collective_rpc("register_capture", args=(request, [steering.point]))
            until = _FOREVER if ask.most_seconds is None else time.monotonic() + ask.most_seconds
            params = self._params(ask, ask.samplings[number])
            async for output in self._llm.generate(prompt, params, request):
                self._check_time(until, ask)
                own = output.outputs[0]
                for place in range(n_written, len(own.token_ids)):
                    token, n_written = int(own.token_ids[place]), place + 1
                    if token in self._ends:
                        reason = "stop"
                        break
                    held += writer.add(Written(number, token, "", _likelihood(ask, own.logprobs, place)))
                    if writer.has_stopped:
                        reason, is_done = "stop", True
                        break
                if is_done:
                    await self._llm.abort(request)
                    break
                while held and steering is None:
                    yield held.pop(0)
        finally:
            if steering is not None:
                rows = await asyncio.shield(self._collected(request, steering.point))
        why: Reason = "stop" if reason == "stop" else "length"
        end = self._ended(ask, number, why, n_written, steering, begins, rows, is_done)
        for written in [*held, *writer.end()]:
            yield written
        yield end

    def _ended(
        self,
        ask: Ask,
        number: int,
        reason: Reason,
        n_written: int,
        steering: WorkerSteering | None,
        begins: int,
        rows: int | None,
        was_aborted: bool,
    ) -> Ended:
        """Raises: StageError: fewer rows than tokens were run, so this is no steered text."""
        n_run = len(ask.prompt) + n_written - 1
        n_fired, n_moved = n_run, 0
        if steering is not None:
            n_fired = rows or 0
            if n_fired != n_run and not (was_aborted and n_fired > n_run):  # it runs ahead of who stops it
                raise StageError(
                    f"vllm: the interventions were at work at {n_fired} of {n_run} tokens, so the text is not steered"
                )
            n_moved = steering.n_acted(len(ask.prompt), n_run)
        self._counters.n_prompt_tokens += len(ask.prompt)
        self._counters.n_written_tokens += n_written
        self._counters.n_moved_tokens += n_moved
        self._counters.n_stopped += reason == "stop"
        self._counters.n_at_length += reason == "length"
        stamp = Stamp(n_run - begins, min(n_fired, n_run) - begins, n_moved, ask.plan.key)
        return Ended(number, reason, n_written, stamp)

    async def _collected(self, request: str, point: str) -> int:
        """Rows of a request at the place where it is counted; the request is known to the workers no longer."""
        payloads = await self._llm.collective_rpc("collect_request", args=(request,))
        await self._llm.collective_rpc("unregister_steering", args=(request,))
        found = {str(address): rows for address, rows in self._decode(payloads[0]).items()}
        return len(found[point]) if point in found else 0

    def _params(self, ask: Ask, way: Sampling) -> Any:
        return self._sampling_params(
            n=1,
            temperature=way.temperature,
            top_p=way.top_p,
            seed=way.seed % (1 << 63),  # its seeds are signed
            max_tokens=ask.max_new_tokens,
            logprobs=ask.n_top,
            stop_token_ids=sorted(self._ends),
            ignore_eos=True,  # those are in the list above
            detokenize=False,
        )

    def _check_time(self, until: float, ask: Ask) -> None:
        now = time.monotonic()
        if now >= self._end_at:
            raise EngineError("ending", "the server is ending; this answer was cut")
        if now > until:
            raise EngineError("late", f"not done in {ask.most_seconds or 0.0:g} s; ask for fewer tokens")

    @property
    def counters(self) -> Counters:
        """As of now. Passes are vLLM's own affair, and are not counted here."""
        return replace(self._counters, n_running=self._n_open)

    def end(self, seconds: float) -> None:
        """See `Engine`."""
        self._end_at = min(self._end_at, time.monotonic() + seconds)

    def close(self) -> None:
        """See `Engine`."""
        self.end(0.0)
        self._llm.shutdown()


def _likelihood(ask: Ask, logprobs: Sequence[Mapping[int, Any]] | None, place: int) -> Likelihood | None:
    if ask.n_top is None or logprobs is None:
        return None
    here = {token: float(each.logprob) for token, each in logprobs[place].items()}
    top = sorted(here.items(), key=lambda pair: -pair[1])[: ask.n_top]
    return Likelihood(next(iter(here.values())), tuple(top))  # the chosen token's stands first
