"""What is counted of a server, as Prometheus reads it. Each process of a server counts for itself."""

import os
import socket
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from mohole.engine import Counters

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_COUNTED = {
    "asked": ("n_asked", "Continuations that were asked for."),
    "prompt_tokens": ("n_prompt_tokens", "Tokens of prompts that were run."),
    "written_tokens": ("n_written_tokens", "Tokens that were written."),
    "moved_tokens": ("n_moved_tokens", "Tokens whose row an intervention moved."),
    "passes": ("n_passes", "Passes of a model."),
    "rows_run": ("n_rows_run", "Continuations in all passes; over passes: how full batches are."),
    "rescued": ("n_rescued", "Continuations begun again because one beside them failed."),
}
_NOW = {
    "running": ("n_running", "Continuations in a batch."),
    "waiting": ("n_waiting", "Continuations that wait for a place in one."),
}
_ENDS = {"stop": "n_stopped", "length": "n_at_length", "cancelled": "n_cancelled", "failed": "n_failed"}


class Measures:
    """Of one app. `counters` is asked at every reading."""

    def __init__(self, counters: Callable[[], Counters]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_OfEngines(counters))
        self.requests = Counter(
            "mohole_requests", "Requests at /v1, by how they ended.", ["endpoint", "status"], registry=self._registry
        )
        self.open = Gauge("mohole_open_requests", "Requests at /v1 under way.", registry=self._registry)
        self.first = Histogram(
            "mohole_first_token_seconds", "Until the first token is known.", buckets=_SECONDS, registry=self._registry
        )
        self.whole = Histogram(
            "mohole_answer_seconds", "Until an answer is whole.", buckets=_SECONDS, registry=self._registry
        )

    def text(self) -> bytes:
        """All of it, in Prometheus' text format."""
        return generate_latest(self._registry)


class _OfEngines(Collector):
    def __init__(self, counters: Callable[[], Counters]) -> None:
        self._counters = counters

    def collect(self) -> Iterator[Metric]:
        counters = self._counters()
        whose = GaugeMetricFamily("mohole_process", "Whose counts these are.", labels=["host", "pid"])
        whose.add_metric([socket.gethostname(), str(os.getpid())], 1)  # of now: processes are forked from one app
        yield whose
        for name, (field, what) in _COUNTED.items():
            yield CounterMetricFamily(f"mohole_{name}", what, value=getattr(counters, field))
        for name, (field, what) in _NOW.items():
            yield GaugeMetricFamily(f"mohole_{name}", what, value=getattr(counters, field))
        ended = CounterMetricFamily("mohole_ended", "Continuations that ended, by how.", labels=["how"])
        for how, field in _ENDS.items():
            ended.add_metric([how], getattr(counters, field))
        yield ended
