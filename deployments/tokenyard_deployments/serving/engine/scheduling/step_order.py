"""Who of those that run gets tokens in the next step, and who gives up a slot.

An organization's `standing` is its service, less one quantum while it has nothing running: the lowest comes first.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from tokenyard_deployments.serving.engine.scheduling.sequences import Sequence, prefill_left
from tokenyard_deployments.serving.engine.scheduling.service import WeightedService

SequenceT = TypeVar("SequenceT", bound=Sequence)


def in_turn(
    running: Iterable[SequenceT], standing: Callable[[str], float], organization_of: Callable[[SequenceT], str]
) -> list[SequenceT]:
    """Return the running sequences in the order in which they get tokens: decodes, then the least served's prefills."""
    return sorted(running, key=lambda one: (one.is_prefill_chunk, standing(organization_of(one)), one.arrival_time))


def held_prefills(
    running: Iterable[SequenceT],
    wanted: Mapping[str, int],
    budget: int,
    standing: Callable[[str], float],
    organization_of: Callable[[SequenceT], str],
) -> list[SequenceT]:
    """Return the running prefills that must not take tokens of the next step.

    The engine gives a step's tokens to those that run before it looks at those that wait. So what the organizations
    served less want for a start (`wanted`, in tokens) is kept free for them: a prefill of a more served one goes on
    only where it fits beside that. `budget` are the step's tokens.
    """
    running = list(running)
    prefills = [one for one in running if one.is_prefill_chunk]
    left = budget - (len(running) - len(prefills))
    by_organization: dict[str, list[SequenceT]] = {}
    for one in prefills:
        by_organization.setdefault(organization_of(one), []).append(one)
    held: list[SequenceT] = []
    somebody_waits = False
    for organization in sorted({*by_organization, *wanted}, key=standing):
        for one in sorted(by_organization.get(organization, ()), key=lambda one: one.arrival_time):
            if somebody_waits and prefill_left(one) > left:
                held.append(one)
            else:
                left -= prefill_left(one)
        if wanted.get(organization):
            somebody_waits = True
            left -= wanted[organization]
    return held


def most_served(
    running: Iterable[SequenceT],
    newcomer: str,
    standing: Callable[[str], float],
    organization_of: Callable[[SequenceT], str],
    may_stop: Callable[[SequenceT], bool],
    *,
    margin: float,
) -> SequenceT | None:
    """Return the sequence that is to make room for organization `newcomer`, which has nothing running.

    It is the youngest of the most served organization that has more than one running, or stands behind it by a
    `margin`; nobody who stands before the newcomer gives anything up.
    """
    by_organization: dict[str, list[SequenceT]] = {}
    for one in running:
        by_organization.setdefault(organization_of(one), []).append(one)
    over_served = [
        (standing(organization), len(theirs), organization)
        for organization, theirs in by_organization.items()
        if organization != newcomer
        and standing(organization) >= standing(newcomer) + (0.0 if len(theirs) > 1 else margin)
    ]
    for _, _, organization in sorted(over_served, reverse=True):
        stoppable = [one for one in by_organization[organization] if may_stop(one)]
        if stoppable:
            return max(stoppable, key=lambda one: one.arrival_time)
    return None


def over_share(
    running: Mapping[str, int], organization: str, slots: int, service: WeightedService, quantum: float
) -> str | None:
    """Return who is to give up a slot for `organization`, which waits with fewer than its share by weight, or None.

    `running` counts every organization's running sequences, of those that only wait 0. Only who has more than its own
    share gives one up, and was served more by over a quantum: so slots go to and fro no more often than that.
    """
    weights = sum(service.weight(one) for one in running)

    def share(one: str) -> float:
        return slots * service.weight(one) / weights

    if running[organization] + 1 > share(organization):
        return None
    over = [
        one
        for one, count in running.items()
        if count - 1 >= share(one) and service.of(one) > service.of(organization) + quantum
    ]
    return max(over, key=service.of, default=None)
