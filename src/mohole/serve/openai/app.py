"""The routes at /v1, as an app of their own: its errors have another body than those of /api/v1. Wires; computes nothing."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from mohole.engine import Ended, Event, Written
from mohole.errors import MoholeError
from mohole.serve.bodies import json_bytes
from mohole.serve.errors import Refusal
from mohole.serve.openai.answers import Answer, Json, Parts
from mohole.serve.openai.asked import ChatAsked, CompletionAsked, Endpoint, parse
from mohole.serve.openai.events import DONE, EventStream, event, while_there
from mohole.serve.openai.journal import Journal
from mohole.serve.openai.keys import Keys
from mohole.serve.openai.measures import Measures
from mohole.serve.openai.merged import merged
from mohole.serve.openai.refusals import OpenAIRefusal, answer_failure, as_refusal
from mohole.serve.openai.settings import ChatSettings
from mohole.serve.openai.talkers import Talk, Talkers

_LOG = logging.getLogger(__name__)
_BODY_SECONDS = 30.0
_SLOWER_SECONDS = 60.0  # that a reader may take longer than the answer itself


@dataclass
class _Request:
    """What is known of a request while it is answered: for the journal and the measures."""

    endpoint: Endpoint
    asker: str
    began: float = field(default_factory=time.monotonic)
    facts: dict[str, object] = field(default_factory=dict)
    is_told: bool = False


class ChatApp:
    """Everything behind /v1."""

    def __init__(self, talkers: Talkers, settings: ChatSettings) -> None:
        """Raises: ConfigError: a journal that cannot be written."""
        self.talkers, self.settings = talkers, settings
        self.keys = Keys(settings.api_keys, settings.requests_per_minute)
        self.journal = Journal(settings.log, with_prompts=settings.log_prompts)
        self.measures = Measures(lambda: talkers.counters)
        self._n_open = 0

    @property
    def app(self) -> Starlette:
        """To be mounted at /v1."""
        return Starlette(
            routes=[
                Route("/models", self.models, methods=["GET"]),
                Route("/models/{name:path}", self.model, methods=["GET"]),
                Route("/chat/completions", self.chat, methods=["POST"]),
                Route("/completions", self.completions, methods=["POST"]),
            ],
            exception_handlers={
                kind: answer_failure for kind in (OpenAIRefusal, Refusal, MoholeError, HTTPException, Exception)
            },
        )

    def end(self, seconds: float) -> None:
        """Take no more; cut what is not done in so many seconds. From any thread."""
        self.talkers.end(seconds)

    def close(self) -> None:
        """When nobody asks any more."""
        self.talkers.close()
        self.journal.close()

    async def models(self, request: Request) -> Response:
        self._asker(request)
        found = await asyncio.to_thread(self.talkers.names.listed)
        return _json({"object": "list", "data": found})

    async def model(self, request: Request) -> Response:
        self._asker(request)
        return _json(await asyncio.to_thread(self.talkers.names.entry, request.path_params["name"]))

    async def chat(self, request: Request) -> Response:
        return await self._answer(request, "chat", ChatAsked)

    async def completions(self, request: Request) -> Response:
        return await self._answer(request, "completions", CompletionAsked)

    def _asker(self, request: Request) -> str:
        address = request.client.host if request.client else "unknown"
        return self.keys.asker(request.headers.get("authorization"), address)

    async def _answer(
        self, request: Request, endpoint: Endpoint, kind: type[ChatAsked] | type[CompletionAsked]
    ) -> Response:
        mine = _Request(endpoint, "unknown")
        self._n_open += 1
        self.measures.open.inc()
        try:
            mine.asker = self._asker(request)
            self.keys.count(mine.asker)
            if self._n_open > self.settings.most_requests:
                raise OpenAIRefusal(503, "overloaded", "too many requests at once", headers={"Retry-After": "2"})
            asked = parse(kind, await _body(request))
            mine.facts = _facts(asked)
            if self.journal.with_prompts:
                mine.facts["asked"] = asked.messages if isinstance(asked, ChatAsked) else asked.prompt
            return await self._answered(request, mine, asked)
        except ClientDisconnect:
            self._tell(mine, 499, "cancelled")
            return Response(status_code=499)
        except Exception as error:
            refusal = as_refusal(error)
            self._tell(mine, refusal.status, refusal.code)
            raise

    async def _answered(self, request: Request, mine: _Request, asked: ChatAsked | CompletionAsked) -> Response:
        talk = await while_there(request, self.talkers.talk(asked))
        answer = Answer(talk, mine.endpoint)
        mine.facts |= {"n_prompt": answer.usage.n_prompt, "plan": talk.asks[0].plan.key}
        if not asked.stream:
            body = await while_there(request, self._whole(mine, answer))
            self._tell(mine, 200, "whole", answer)
            return _json(body)
        events = self._chunks(mine, answer, with_usage=asked.with_usage)
        try:
            first = await while_there(
                request, anext(events)
            )  # until then, what goes wrong still has a status of its own
        except BaseException:
            await events.aclose()
            raise
        return EventStream(first, events, self.settings.most_seconds + _SLOWER_SECONDS)

    async def _whole(self, mine: _Request, answer: Answer) -> Json:
        written: dict[int, list[Written]] = {}
        ends: dict[int, Ended] = {}
        async with aclosing(self._events(mine, answer)) as events:
            async for choice, each in events:
                if isinstance(each, Ended):
                    ends[choice] = each
                else:
                    written.setdefault(choice, []).append(each)
        if self.journal.with_prompts:
            mine.facts["answered"] = ["".join(each.text for each in written.get(choice, [])) for choice in sorted(ends)]
        return answer.whole([answer.choice(choice, written.get(choice, []), ends[choice]) for choice in sorted(ends)])

    async def _chunks(self, mine: _Request, answer: Answer, *, with_usage: bool) -> AsyncGenerator[bytes]:
        """Events of a stream. What goes wrong behind the first one is an event, too, and no [DONE] follows."""
        parts = Parts(answer)
        has_begun = False
        status, how = 499, "cancelled"
        try:
            async with aclosing(self._events(mine, answer)) as events:
                async for choice, each in events:
                    for part in parts.of(choice, each):
                        yield event(answer.chunk([part], with_usage=with_usage))
                        has_begun = True
            if with_usage:
                yield event(answer.chunk([], answer.usage.json, with_usage=True))
            status, how = 200, "whole"
            yield DONE
        except Exception as error:
            refusal = as_refusal(error)
            status, how = refusal.status, refusal.code
            if not has_begun:
                raise
            if refusal.code == "internal_error":  # nobody above sees it, and the client is told to look at the terminal
                _LOG.exception("an answer failed behind its first token")
            yield event(refusal.body)
        finally:
            if self.journal.with_prompts:
                mine.facts["answered"] = parts.texts
            self._tell(mine, status, how, answer)

    async def _events(self, mine: _Request, answer: Answer) -> AsyncGenerator[tuple[int, Event]]:
        """(choice, event) of all prompts."""
        talk: Talk = answer.talk
        is_first = True
        n = len(talk.asks[0].samplings)
        async with aclosing(merged([talk.engine.answer(ask) for ask in talk.asks])) as events:
            async for place, each in events:
                if is_first:
                    is_first = False
                    seconds = time.monotonic() - mine.began
                    self.measures.first.observe(seconds)
                    mine.facts["seconds_to_first"] = round(seconds, 4)
                if isinstance(each, Ended):
                    answer.usage.n_written += each.n_written
                yield place * n + each.row, each

    def _tell(self, mine: _Request, status: int, how: str, answer: Answer | None = None) -> None:
        """Once for each request, when it is over."""
        if mine.is_told:
            return
        mine.is_told = True
        self._n_open -= 1
        self.measures.open.dec()
        self.measures.requests.labels(mine.endpoint, str(status)).inc()
        seconds = time.monotonic() - mine.began
        if how == "whole":
            self.measures.whole.observe(seconds)
        written = {} if answer is None else {"id": answer.id, "n_written": answer.usage.n_written}
        head = {"endpoint": mine.endpoint, "asker": mine.asker, "status": status, "how": how}
        self.journal.write({**head, **mine.facts, **written, "seconds": round(seconds, 4)})


def _facts(asked: ChatAsked | CompletionAsked) -> dict[str, object]:
    """For the journal: nothing of what was said."""
    return {"model": asked.model, "stream": bool(asked.stream), "n": asked.n or 1}


async def _body(request: Request) -> bytes:
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            return await request.body()
    except TimeoutError:
        raise OpenAIRefusal(408, "slow_body", f"the body took longer than {_BODY_SECONDS:g} s") from None


def _json(body: object) -> Response:
    return Response(json_bytes(body), 200, {"Cache-Control": "no-store"}, "application/json")
