"""Which of the deliveries that are due are sent now, so that nobody's slow endpoint holds up others. Pure."""

from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

OF_ENDPOINT = 4
OF_ORGANIZATION = 8


class Candidate(msgspec.Struct, frozen=True):
    """A delivery that is due, or under way; `failing`: nothing was delivered to its endpoint since it failed last."""

    id: int
    organization: str
    endpoint: str
    failing: bool


def choose(
    due: Sequence[Candidate], under_way: Iterable[Candidate], *, free: int, free_for_failing: int
) -> list[Candidate]:
    """Return at most `free` of `due`, in its order, among them at most `free_for_failing` to endpoints that fail.

    What is `under_way`, by whatever worker, counts: at most `OF_ENDPOINT` at once, one where it fails, and
    `OF_ORGANIZATION`.
    """
    of_endpoint, of_organization = Counter[str](), Counter[str]()
    for one in under_way:
        of_endpoint[one.endpoint] += 1
        of_organization[one.organization] += 1
    chosen: list[Candidate] = []
    for one in due:
        bound = 1 if one.failing else OF_ENDPOINT
        full = of_endpoint[one.endpoint] >= bound or of_organization[one.organization] >= OF_ORGANIZATION
        if len(chosen) == free or full or (one.failing and not free_for_failing):
            continue
        free_for_failing -= one.failing
        of_endpoint[one.endpoint] += 1
        of_organization[one.organization] += 1
        chosen.append(one)
    return chosen
