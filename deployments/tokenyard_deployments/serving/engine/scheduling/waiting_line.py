"""Who starts next: the least served organization, and within a quantum of it whoever finds its prefix computed.

Source: Cao et al., "Locality-aware Fair Scheduling in LLM Serving", arXiv 2501.14312 (deficit longest-prefix match).
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import islice
from typing import Generic, TypeVar

from tokenyard_deployments.serving.engine.scheduling.sequences import Sequence
from tokenyard_deployments.serving.engine.scheduling.service import WeightedService

SequenceT = TypeVar("SequenceT", bound=Sequence)

# So many waiting sequences are looked at for the longest prefix, and of each organization at least so many.
MAX_LOOKED_AT = 128
LEAST_LOOKED_AT = 4
# An organization's oldest sequence lets so many younger ones of its own pass.
PATIENCE = 16


class WaitingLine(Generic[SequenceT]):
    """The waiting sequences, each organization's in order of arrival."""

    def __init__(self, service: WeightedService, quantum: float) -> None:
        self._service = service
        self._quantum = quantum
        self._lines: dict[str, OrderedDict[str, SequenceT]] = {}
        self._passed: dict[str, int] = {}
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[SequenceT]:
        for line in self._lines.values():
            yield from line.values()

    @property
    def organizations(self) -> Collection[str]:
        return self._lines.keys()

    def of(self, organization: str) -> Iterator[SequenceT]:
        return iter(self._line(organization).values())

    def append(self, organization: str, sequence: SequenceT) -> None:
        self._lines.setdefault(organization, OrderedDict())[sequence.request_id] = sequence
        self._length += 1

    def prepend(self, organization: str, sequence: SequenceT) -> None:
        """Put back a sequence that was taken out, before all others of its organization."""
        self.append(organization, sequence)
        self._lines[organization].move_to_end(sequence.request_id, last=False)

    def remove(self, organization: str, sequence: SequenceT) -> bool:
        """Take a sequence out; return whether an older one of its organization stays."""
        line = self._line(organization)
        if line.pop(sequence.request_id, None) is None:
            return False
        self._length -= 1
        if not line:
            del self._lines[organization]
            self._passed.pop(organization, None)
            self._service.waits_no_more(organization)
            return False
        oldest = next(iter(line.values()))
        return oldest.arrival_time < sequence.arrival_time

    def started(self, organization: str, *, passed: bool) -> None:
        """Note that a sequence started, and whether it passed an older one of its organization."""
        if passed and organization in self._lines:
            self._passed[organization] = self._passed.get(organization, 0) + 1
        else:
            self._passed.pop(organization, None)

    def impatient(self, organization: str) -> bool:
        """Tell whether the organization's oldest sequence has let enough others pass."""
        return self._passed.get(organization, 0) >= PATIENCE

    def eligible(
        self, *, running: Mapping[str, int], only_idle: bool, may_start: Callable[[SequenceT], bool]
    ) -> dict[str, list[SequenceT]]:
        """Return the organizations whose turn it may be, the least served first, and what each of them could start.

        `running` counts each organization's running sequences; with `only_idle` one that has any gets no turn. Within
        the quantum of the least served, those who have nothing running come before the others.
        """
        order = sorted(self._lines, key=self._service.of)
        # Also of those that get no turn now: being idle is no way to be served more than they are.
        first = next((at for at, one in enumerate(order) if self.looked_at(one, may_start, 1)), len(order))
        limit = self._service.of(order[first]) + self._quantum if first < len(order) else 0.0
        near = [one for one in order[first:] if self._service.of(one) <= limit]
        idle = self._startable([one for one in near if not running.get(one, 0)], may_start)
        return idle if idle or only_idle else self._startable(near, may_start)

    def _startable(
        self, organizations: Collection[str], may_start: Callable[[SequenceT], bool]
    ) -> dict[str, list[SequenceT]]:
        """Return what may start, of a bounded number in all: of few organizations more is looked at than of many."""
        depth = max(LEAST_LOOKED_AT, MAX_LOOKED_AT // max(1, len(organizations)))
        return {
            one: found
            for one in islice(organizations, MAX_LOOKED_AT // LEAST_LOOKED_AT)
            if (found := self.looked_at(one, may_start, depth))
        }

    def pick(
        self, eligible: Mapping[str, list[SequenceT]], resident_tokens: Callable[[SequenceT], int]
    ) -> tuple[str, SequenceT] | None:
        """Return the organization and the sequence to start next, or None where none may."""
        offered = [(one, sequence) for one, sequences in eligible.items() for sequence in sequences]
        if len(offered) < 2:
            return offered[0] if offered else None
        # Of equals the first is taken: of the least served organization, the one that came first.
        return max(offered, key=lambda offer: resident_tokens(offer[1]))

    def _line(self, organization: str) -> OrderedDict[str, SequenceT]:
        return self._lines.get(organization) or OrderedDict()

    def looked_at(
        self, organization: str, may_start: Callable[[SequenceT], bool], depth: int = LEAST_LOOKED_AT
    ) -> list[SequenceT]:
        """Return the oldest sequences of an organization that may start, of which one is picked."""
        return list(islice(filter(may_start, self.of(organization)), 1 if self.impatient(organization) else depth))
