"""Replicas of a web app on Ray Serve: each an actor that makes the whole app for itself. Knows nothing of what the app answers.

Ray Serve listens, gives each request to the replica that has the fewest, hands on what they send as they send it, tells them when
the asker goes away, and starts a replica again that has died. It is asked for nothing else: how many answers are written at
once, and what is refused, is the app's own affair.
"""

import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from mohole.errors import ConfigError, StageError
from mohole.execute.cluster import Asked, open_cluster
from mohole.execute.cores import Cores
from mohole.execute.least_busy import ROUTER
from mohole.version import __version__

_ASKED = Asked(what="--replicas", address="--ray", extra="replicas", module="ray.serve")
_NAME = "mohole"
_MOST_REQUESTS = 1024
"""That a replica has in hand, and that wait for one: more than the app takes, so that refusals are the app's, in its words."""
_SECONDS_TO_TELL = 3.0
_SECONDS_TO_HAND_ON = 0.3  # the last words of cut answers, from Ray's proxy to those who asked


App = Callable[[Any, Any, Any], Awaitable[None]]
"""An ASGI app: scope, receive, send."""


@dataclass(frozen=True)
class ReplicaPlan:
    """How many replicas, with what, and where they are asked."""

    cores: Cores
    """As many processes as replicas; the threads are each one's."""
    host: str
    port: int
    n_gpus: float = 0.0
    """Of each replica."""
    address: str | None = None
    """Of a Ray cluster that runs already; None: one of our own, on this machine."""
    everywhere: bool = False
    """Each machine with a replica listens, not the cluster's head alone."""
    ending_seconds: float = 4.0
    """That answers under way have when all is taken down."""

    @property
    def n(self) -> int:
        """Replicas."""
        return self.cores.processes


@contextmanager
def open_replicas(
    plan: ReplicaPlan, make: Callable[[], App], end: Callable[[Any, float], None]
) -> Iterator["Replicas"]:
    """Replicas that are being started; they, and the Ray that was started for them, are taken down with the block.

    Args:
        make: the app, called in each replica. It and what it holds must be importable on every machine.
        end: given an app and seconds: take no more requests, and be done with all by then.

    Raises:
        ConfigError: Ray Serve is not installed, no cluster answers, it serves something already, or has too few GPUs.
        StageError: nothing could listen.
    """
    with open_cluster(plan.cores, plan.address, _ASKED, logs=False) as is_cluster:
        _need_room(plan, is_cluster)
        replicas = Replicas(plan)
        try:
            replicas.start(make, end, is_cluster)
            yield replicas
        finally:
            replicas.take_down()


def _need_room(plan: ReplicaPlan, is_cluster: bool) -> None:
    import ray
    from ray.util import list_named_actors

    if any(each["namespace"] == "serve" for each in list_named_actors(all_namespaces=True)):
        raise ConfigError(
            f"--ray {plan.address}: Ray Serve runs there already, and a cluster has one; `serve status` says what it serves"
        )
    wanted = plan.n * plan.n_gpus
    found = float(ray.cluster_resources().get("GPU", 0))  # type: ignore[no-untyped-call]
    if not is_cluster and wanted > found:  # a cluster may grow
        raise ConfigError(
            f"--replicas {plan.n}: {wanted:g} GPUs are needed, {plan.n_gpus:g} for each, and {found:g} are here; "
            "--replica-gpus shares one, and --ray names a cluster"
        )


@dataclass(frozen=True)
class Standing:
    """Of replicas, at one moment."""

    n: int
    """That are there and well."""
    said: str = ""
    """What Ray says of those that are missing; may be empty."""


class Replicas:
    """What Ray Serve runs for us."""

    def __init__(self, plan: ReplicaPlan) -> None:
        self.plan = plan
        self._handle: Any = None

    def start(self, make: Callable[[], App], end: Callable[[Any, float], None], is_cluster: bool) -> None:
        """Begin to listen, and to make replicas. Raises: StageError: nothing could listen."""
        from ray import serve
        from ray.exceptions import RayError
        from ray.serve.config import RequestRouterConfig

        logs = {"log_level": "WARNING", "enable_access_log": False}
        where = "EveryNode" if self.plan.everywhere else "HeadOnly"
        try:
            serve.start(
                proxy_location=where,
                http_options={"host": self.plan.host, "port": self.plan.port},
                logging_config=logs,
            )
        except (RayError, RuntimeError, TimeoutError) as error:
            raise StageError(
                f"--host {self.plan.host} --port {self.plan.port}: Ray Serve could not listen there ({_last(error)})"
            ) from None
        deployment = serve.deployment(
            name=_NAME,
            num_replicas=self.plan.n,
            max_ongoing_requests=_MOST_REQUESTS,
            max_queued_requests=_MOST_REQUESTS,
            ray_actor_options={
                "num_cpus": self.plan.cores.threads if is_cluster else 1,
                "num_gpus": self.plan.n_gpus,
            },
            graceful_shutdown_wait_loop_s=0.1,
            graceful_shutdown_timeout_s=self.plan.ending_seconds + 2,
            request_router_config=RequestRouterConfig(request_router_class=ROUTER),  # type: ignore[arg-type]
            health_check_period_s=2,  # so soon is a dead one noticed, and begun again
            max_constructor_retry_count=1,
            logging_config=logs,
        )(_replica(make, end))
        (self._handle,) = serve.run_many(
            [serve.RunTarget(deployment.bind(), name=_NAME)], wait_for_applications_running=False
        )

    def standing(self) -> "Standing":
        """Who answers now.

        Raises:
            StageError: none can be made, or Ray is gone.
        """
        from ray import serve
        from ray.exceptions import RayError

        try:
            app = serve.status().applications.get(_NAME)
        except RayError as error:
            raise StageError(f"--replicas: Ray has ended ({_last(error)}); start the server again") from None
        if app is None or _NAME not in app.deployments:
            return Standing(0)
        deployment = app.deployments[_NAME]
        if app.status == "DEPLOY_FAILED":
            raise StageError(
                f"--replicas: none could be made ({_last(deployment.message)}); has every machine mohole {__version__}, "
                "and the runs at the same path?"
            )
        return Standing(
            sum(n for state, n in deployment.replica_states.items() if state == "RUNNING"), _last(deployment.message)
        )

    def take_down(self) -> None:
        """Tell who is being answered that it ends, wait for them, and take everything of ours away."""
        from ray import serve
        from ray.exceptions import RayError
        from ray.serve.exceptions import RayServeException

        with suppress(RayError, RayServeException, TimeoutError):  # what has gone already need not be told
            if self._handle is not None:
                self._handle.broadcast("end", self.plan.ending_seconds).results(
                    timeout_s=_SECONDS_TO_TELL, return_exceptions=True
                )
                serve.delete(_NAME)  # waits for them
                time.sleep(_SECONDS_TO_HAND_ON)
        with suppress(RayError, RayServeException, TimeoutError):
            serve.shutdown()  # type: ignore[no-untyped-call]


def _replica(make: Callable[[], App], end: Callable[[Any, float], None]) -> type:
    """The actor's class. A function of its own: what Ray takes for a maker of apps is a plain function without arguments."""
    from ray import serve

    def made() -> App:
        return make()

    @serve.ingress(made)
    class Replica:
        def end(self, seconds: float) -> None:
            end(self.app, seconds)  # type: ignore[attr-defined]

    return Replica


def _last(said: object) -> str:
    """The last line: of a traceback, the error itself."""
    lines = [line.strip() for line in str(said).splitlines() if line.strip()]
    return lines[-1] if lines else ""
