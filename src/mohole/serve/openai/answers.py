"""Events of an engine in the shapes of OpenAI's answers: whole ones, and the chunks of a stream. Plain values; no HTTP."""

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from mohole.byte_pieces import bytes_of
from mohole.engine import Ended, Event, Likelihood, Written
from mohole.model import Tokenizer
from mohole.serve.openai.asked import Endpoint
from mohole.serve.openai.talkers import Talk

_LEAST_LOGPROB = -9999.0  # what OpenAI says of a token that is next to impossible

Json = dict[str, object]


@dataclass
class Usage:
    """Tokens, counted as they come."""

    n_prompt: int
    n_written: int = 0

    @property
    def json(self) -> Json:
        """As OpenAI says it."""
        total = self.n_prompt + self.n_written
        return {"prompt_tokens": self.n_prompt, "completion_tokens": self.n_written, "total_tokens": total}


@dataclass
class Answer:
    """One request's answer under way: its name, its usage, and how each part of it is written."""

    talk: Talk
    endpoint: Endpoint
    id: str = field(init=False)
    created: int = field(init=False)
    usage: Usage = field(init=False)

    def __post_init__(self) -> None:
        prefix = "chatcmpl" if self.endpoint == "chat" else "cmpl"
        self.id, self.created = f"{prefix}-{secrets.token_hex(12)}", int(time.time())
        self.usage = Usage(sum(len(ask.prompt) for ask in self.talk.asks))
        self._n_letters: dict[int, int] = {}

    def seed(self, choice: int) -> int:
        """What a choice is drawn with."""
        n = len(self.talk.asks[0].samplings)
        return self.talk.asks[choice // n].samplings[choice % n].seed

    def whole(self, choices: Sequence[Json]) -> Json:
        """The body of an answer that is no stream."""
        kind = "chat.completion" if self.endpoint == "chat" else "text_completion"
        return {**self._head(kind), "choices": list(choices), "usage": self.usage.json}

    def chunk(self, choices: Sequence[Json], usage: Json | None = None, *, with_usage: bool = False) -> Json:
        """One event of a stream."""
        kind = "chat.completion.chunk" if self.endpoint == "chat" else "text_completion"
        return {**self._head(kind), "choices": list(choices), **({"usage": usage} if with_usage else {})}

    def _head(self, kind: str) -> Json:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.talk.model,
            "system_fingerprint": self.talk.fingerprint,
        }

    def begun(self, choice: int) -> Json:
        """The first chunk of a choice, in chat."""
        return {
            "index": choice,
            "delta": {"role": "assistant", "content": ""},
            "logprobs": None,
            "finish_reason": None,
        }

    def part(self, choice: int, written: Sequence[Written]) -> Json:
        """A choice's share in a chunk: some tokens."""
        text = "".join(each.text for each in written)
        body: Json = {"delta": {"content": text}} if self.endpoint == "chat" else {"text": text}
        body = {"index": choice, **body, "logprobs": self._logprobs(choice, written), "finish_reason": None}
        return body | self._own(written, {})

    def last(self, choice: int, written: Sequence[Written], end: Ended) -> Json:
        """A choice's last share: what is left, and how it ended."""
        body: Json = {"delta": _delta(written)} if self.endpoint == "chat" else {"text": _text(written)}
        logprobs = self._logprobs(choice, written) if written else None
        body = {"index": choice, **body, "logprobs": logprobs, "finish_reason": end.reason}
        return body | self._own(written, self._proof(choice, end))

    def choice(self, choice: int, written: Sequence[Written], end: Ended) -> Json:
        """A whole choice."""
        text = _text(written)
        body: Json = {"message": {"role": "assistant", "content": text, "refusal": None}}
        body = body if self.endpoint == "chat" else {"text": text}
        body = {"index": choice, **body, "logprobs": self._logprobs(choice, written), "finish_reason": end.reason}
        return body | self._own(written, self._proof(choice, end))

    def _proof(self, choice: int, end: Ended) -> Json:
        warnings = {"warnings": list(self.talk.warnings)} if self.talk.warnings else {}
        return {"seed": self.seed(choice), "stamp": asdict(end.stamp), **warnings}

    def _own(self, written: Sequence[Written], more: Mapping[str, object]) -> Json:
        """The key that is mohole's."""
        readings = [
            {"text": each.text, "token": self.talk.tokenizer.piece(each.token), "id": each.token, "values": each.values}
            for each in written
            if each.values is not None
        ]
        own = {**({"readings": readings} if self.talk.asks[0].readings else {}), **more}
        return {"mohole": own} if own else {}

    def _logprobs(self, choice: int, written: Sequence[Written]) -> Json | None:
        if self.talk.asks[0].n_top is None:
            return None
        return self._chat_logprobs(written) if self.endpoint == "chat" else self._text_logprobs(choice, written)

    def _chat_logprobs(self, written: Sequence[Written]) -> Json:
        content = []
        for each in written:
            own, top = _likelihood(each)
            tops = [_entry(self.talk.tokenizer, token, logprob) for token, logprob in top]
            content.append({**_entry(self.talk.tokenizer, each.token, own), "top_logprobs": tops})
        return {"content": content, "refusal": None}

    def _text_logprobs(self, choice: int, written: Sequence[Written]) -> Json:
        piece = self.talk.tokenizer.piece
        at = self._n_letters.get(choice, 0)
        offsets = []
        for each in written:
            offsets.append(at)
            at += len(each.text)
        self._n_letters[choice] = at
        both = [_likelihood(each) for each in written]
        return {
            "tokens": [piece(each.token) for each in written],
            "token_logprobs": [own for own, _ in both],
            "top_logprobs": [{piece(token): logprob for token, logprob in top} for _, top in both],
            "text_offset": offsets,
        }


class Parts:
    """What events are in the chunks of a stream."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._silent: dict[int, list[Written]] = {}  # of each choice the tokens that have no text of their own yet
        self._texts: dict[int, list[str]] = {}

    @property
    def texts(self) -> list[str]:
        """Of each choice, so far."""
        return ["".join(self._texts[choice]) for choice in sorted(self._texts)]

    def of(self, choice: int, each: Event) -> list[Json]:
        """None, one, or with the first of a choice in chat two: who speaks comes before what is said."""
        found = []
        if choice not in self._silent:
            self._silent[choice], self._texts[choice] = [], []
            found = [self._answer.begun(choice)] if self._answer.endpoint == "chat" else []
        silent = self._silent[choice]
        if isinstance(each, Ended):
            return [*found, self._answer.last(choice, silent, each)]
        silent.append(each)
        if each.text:
            self._silent[choice] = []
            self._texts[choice].append(each.text)
            found.append(self._answer.part(choice, silent))
        return found


def _text(written: Sequence[Written]) -> str:
    return "".join(each.text for each in written)


def _delta(written: Sequence[Written]) -> Json:
    return {"content": _text(written)} if written else {}


def _likelihood(written: Written) -> tuple[float, list[tuple[int, float]]]:
    found = written.likelihood or Likelihood(0.0, ())
    return max(found.logprob, _LEAST_LOGPROB), [(token, max(value, _LEAST_LOGPROB)) for token, value in found.top]


def _entry(tokenizer: Tokenizer, token: int, logprob: float) -> Json:
    piece = tokenizer.piece(token)
    return {"token": piece, "logprob": logprob, "bytes": list(bytes_of(piece))}
