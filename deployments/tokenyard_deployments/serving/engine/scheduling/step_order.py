"""Who of those that run gets tokens in the next step, and who gives up a slot.

An organization's `standing` is its service, less one quantum while it has nothing running: the lowest comes first.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from tokenyard_deployments.serving.engine.scheduling.sequences import Sequence, prefill_left

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
) -> SequenceT | None:
    """Return the sequence that is to make room for organization `newcomer`, which has nothing running.

    It is the youngest of the most served organization that has more than one running; nobody who stands before the
    newcomer gives anything up.
    """
    by_organization: dict[str, list[SequenceT]] = {}
    for one in running:
        by_organization.setdefault(organization_of(one), []).append(one)
    over_served = [
        (standing(organization), len(theirs), organization)
        for organization, theirs in by_organization.items()
        if len(theirs) > 1 and organization != newcomer and standing(organization) >= standing(newcomer)
    ]
    for _, _, organization in sorted(over_served, reverse=True):
        stoppable = [one for one in by_organization[organization] if may_stop(one)]
        if stoppable:
            return max(stoppable, key=lambda one: one.arrival_time)
    return None
