"""Who may ask, and how often: API keys and their rates. Keys are kept as digests, so that nothing can say them."""

import hashlib
import hmac
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from mohole.serve.openai.refusals import OpenAIRefusal

_MOST_KNOWN = 4096
"""Askers whose rate is remembered; who has not asked for longest is forgotten."""


class Keys:
    """The keys of a server; without any, everybody may ask, and each address has a rate of its own."""

    def __init__(
        self, keys: Sequence[str] = (), per_minute: int | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Args: per_minute: requests that a key may make in a minute, that many also at once. None: any number."""
        self._digests = [_digest(key) for key in keys]
        self._per_minute, self._clock = per_minute, clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # asker -> (requests left, when)

    def asker(self, authorization: str | None, address: str) -> str:
        """Who asks, under a name that tells nothing: `key-1a2b3c4d`, or the address where no key is needed.

        Raises:
            OpenAIRefusal: 401.
        """
        if not self._digests:
            return address
        scheme, _, given = (authorization or "").partition(" ")
        digest = _digest(given.strip()) if scheme.lower() == "bearer" else b""
        known = [hmac.compare_digest(digest, each) for each in self._digests]  # all of them: the time tells nothing
        if not any(known):
            what = "a wrong API key" if authorization else "no API key"
            raise OpenAIRefusal(
                401,
                "invalid_api_key",
                f"{what}; give one that the server was started with, as Authorization: Bearer KEY",
                headers={"WWW-Authenticate": "Bearer"},
            )
        return f"key-{digest.hex()[:8]}"

    def count(self, asker: str) -> None:
        """One request more. Raises: OpenAIRefusal: 429."""
        if self._per_minute is None:
            return
        now = self._clock()
        left, before = self._left.pop(asker, (float(self._per_minute), now))
        left = min(float(self._per_minute), left + (now - before) * self._per_minute / 60)
        self._left[asker] = (max(0.0, left - 1), now) if left >= 1 else (left, now)
        if len(self._left) > _MOST_KNOWN:
            self._left.popitem(last=False)
        if left < 1:
            seconds = math.ceil((1 - left) * 60 / self._per_minute)
            raise OpenAIRefusal(
                429,
                "rate_limit_exceeded",
                f"more than {self._per_minute} requests in a minute; ask again in {seconds} s",
                headers={"Retry-After": str(seconds)},
            )


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "replace")).digest()
