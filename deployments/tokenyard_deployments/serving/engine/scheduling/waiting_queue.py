"""vLLM's waiting queue, in the order of service."""

from collections.abc import Callable, Iterable, Iterator

from vllm.v1.core.sched.request_queue import RequestQueue
from vllm.v1.request import Request

from tokenyard_deployments.serving.engine.scheduling.waiting_line import WaitingLine

Pick = Callable[[], tuple[str, Request] | None]


class FairQueue(RequestQueue):  # type: ignore[misc]
    """The scheduler asks whether there is a request, looks at it, then takes it: `pick` decides once for all three.

    What it takes either runs afterwards or comes back by `prepend_requests` in the same step.
    """

    def __init__(self, line: WaitingLine[Request], organization_of: Callable[[Request], str], pick: Pick) -> None:
        self._line = line
        self._organization_of = organization_of
        self._pick = pick
        self._picked: tuple[str, Request] | None = None
        # What this step took, and whether an older one of its organization was passed.
        self._taken: dict[str, tuple[Request, bool]] = {}

    def add_request(self, request: Request) -> None:
        self._picked = None
        self._line.append(self._organization_of(request), request)

    def peek_request(self) -> Request:
        picked = self._choose()
        if picked is None:
            raise IndexError("no request may start now")
        return picked[1]

    def pop_request(self) -> Request:
        picked = self._choose()
        if picked is None:
            raise IndexError("no request may start now")
        organization, request = picked
        self._picked = None
        self._taken[request.request_id] = (request, self._line.remove(organization, request))
        return request

    def prepend_request(self, request: Request) -> None:
        self._picked = None
        self._taken.pop(request.request_id, None)
        self._line.prepend(self._organization_of(request), request)

    def prepend_requests(self, requests: Iterable[Request]) -> None:
        for request in requests:
            self.prepend_request(request)

    def remove_request(self, request: Request) -> None:
        self.remove_requests((request,))

    def remove_requests(self, requests: Iterable[Request]) -> None:
        self._picked = None
        for request in requests:
            self._line.remove(self._organization_of(request), request)

    def begin_step(self) -> None:
        """Forget what was decided: between two steps anything may have changed."""
        self._picked = None
        self._taken.clear()

    def end_step(self) -> Request | None:
        """Note what started; return the request that was looked at last and found no memory, if there is one."""
        for request, passed in self._taken.values():
            self._line.started(self._organization_of(request), passed=passed)
        return None if self._picked is None else self._picked[1]

    def _choose(self) -> tuple[str, Request] | None:
        if self._picked is None:
            self._picked = self._pick()
        return self._picked

    def __bool__(self) -> bool:
        """Whether a request may start now, not whether one waits: that is `len`."""
        return self._choose() is not None

    def __len__(self) -> int:
        return len(self._line)

    def __iter__(self) -> Iterator[Request]:
        return iter(self._line)
