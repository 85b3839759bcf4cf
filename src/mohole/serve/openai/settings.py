"""How `/v1` is to be run: what a person who starts a server may say. Values only."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from mohole.engine.engine import Limits


@dataclass(frozen=True)
class ChatSettings:
    """Of all runs of a server."""

    api_keys: tuple[str, ...] = ()
    """Who gives one of them may ask. Empty: everybody."""
    requests_per_minute: int | None = None
    """Of each key, or of each address where there are no keys."""
    most_tokens: int = 4096
    """That may be asked for in one answer."""
    most_seconds: float = 300.0
    """That an answer may take."""
    most_requests: int = 512
    """Being answered at once, waiting ones included."""
    device: str = "cpu"
    engine: Literal["batching", "vllm"] = "batching"
    """`vllm`: the extra `vllm`, on this machine's GPUs; it steers by directions alone."""
    limits: Limits = field(default_factory=Limits)
    log: Path | None = None
    """A line of JSON for each request; `-` is standard error."""
    log_prompts: bool = False
    """With what was asked and answered."""
