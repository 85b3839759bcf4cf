"""Which replica takes a request: the one with the fewest in hand, as whoever gives them out has counted. Ray Serve calls it.

Ray's own choice asks replicas how many they have, remembers it for seconds, and takes the one it remembers where it has forgotten
the other: of twelve requests at once, after one alone, twelve went to one of two replicas.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any, TypeVar

Replica = TypeVar("Replica")


def in_order(replicas: Iterable[tuple[int, Replica]], turn: int) -> list[Replica]:
    """Those with the fewest requests first; equals take turns, so that the first of a burst are not all given to one.

    >>> in_order([(2, "a"), (0, "b"), (0, "c")], turn=1), in_order([(2, "a"), (0, "b"), (0, "c")], turn=2)
    (['b', 'c', 'a'], ['c', 'b', 'a'])
    """
    listed = list(replicas)
    places = sorted(range(len(listed)), key=lambda place: (listed[place][0], (place - turn) % len(listed)))
    return [listed[place][1] for place in places]


ROUTER = f"{__name__}:LeastBusy"
"""Where Ray Serve finds the class, of which it makes one in each process that gives out requests."""


def __getattr__(name: str) -> Any:
    """The class, made when it is asked for: this file must be readable where Ray Serve is not installed."""
    if name != "LeastBusy":
        raise AttributeError(name)
    from ray.serve.request_router import FIFOMixin, RequestRouter

    class LeastBusy(FIFOMixin, RequestRouter):
        def initialize_state(self, **given: Any) -> None:
            self._in_hand: Counter[Any] = Counter()
            self._turn = 0

        async def choose_replicas(self, candidate_replicas: Any, pending_request: Any = None) -> list[list[Any]]:
            if pending_request is not None:
                pending_request.routing_context.should_backoff = True  # where none takes it, wait before asking again
            self._turn += 1
            counted = ((self._in_hand[each.replica_id], each) for each in candidate_replicas)
            return [[each] for each in in_order(counted, self._turn)]

        def on_send_request(self, replica_id: Any) -> None:
            super().on_send_request(replica_id)
            self._in_hand[replica_id] += 1

        def on_request_completed(self, replica_id: Any, internal_request_id: str) -> None:
            super().on_request_completed(replica_id, internal_request_id)
            self._in_hand[replica_id] -= 1
            if self._in_hand[replica_id] <= 0:
                del self._in_hand[replica_id]  # one that died does not stay in it

    globals()[name] = LeastBusy  # one class, however often it is asked for
    return LeastBusy
