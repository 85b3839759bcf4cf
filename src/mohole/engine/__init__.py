"""Engines: many prompts continued at once, each under its own interventions. Knows no HTTP.

The one of this machine is `mohole.engine.batching`; one over vLLM is `mohole.engine.vllm`.
"""

from mohole.engine.ask import Ask, Ended, Event, Likelihood, Written
from mohole.engine.batching import BatchingEngine
from mohole.engine.engine import Counters, Engine, Limits
from mohole.engine.writer import Writer
from mohole.errors import EngineError
from mohole.model.generate import Sampling

__all__ = [
    "Ask",
    "BatchingEngine",
    "Counters",
    "Ended",
    "Engine",
    "EngineError",
    "Event",
    "Likelihood",
    "Limits",
    "Sampling",
    "Writer",
    "Written",
]
