"""What each organization may still have of each replica before the others had as much: deficit counters.

Source: Cao et al., "Locality-aware Fair Scheduling in LLM Serving", arXiv 2501.14312 (D2LPM).
"""

from collections.abc import Sequence

from tokenyard.gateway.routing.recent import Recent

QUANTUM_TOKENS = 64 * 1024
"""By so much, and one request, what two replicas do for an organization may differ at each gateway."""
MAX_ORGANIZATIONS = 16 * 1024
ANSWER_WEIGHT = 2
"""A token of an answer counts as so many of a prompt, as in the engine's own order."""


class ReplicaCredits:
    """In tokens of prompts. Who has spent its credit at all replicas gets a new quantum for each of them."""

    def __init__(self, quantum: int = QUANTUM_TOKENS, organizations: int = MAX_ORGANIZATIONS) -> None:
        self._quantum = quantum
        self._left: Recent[str, dict[str, int]] = Recent(organizations)

    def with_credit(self, organization: str, replicas: Sequence[str]) -> Sequence[str]:
        """Return those of `replicas` at which the organization has credit left: after a new quantum there are some."""
        left = self._left.get(organization)
        if left is None:
            return replicas
        found = [name for name in replicas if left.get(name, self._quantum) > 0]
        if found:
            return found
        self._refill(left, max(left[name] for name in replicas))
        return [name for name in replicas if left.get(name, self._quantum) > 0]

    def spend(self, organization: str, replica: str, tokens: int) -> None:
        left = self._left.get(organization)
        if left is None:
            left = {}
            self._left.put(organization, left)
        left[replica] = left.get(replica, self._quantum) - tokens

    def _refill(self, left: dict[str, int], most: int) -> None:
        """Give as many quanta for every replica as the one with `most` left needs; who then has a whole one is full."""
        quanta = self._quantum * (-most // self._quantum + 1)
        for name, tokens in list(left.items()):
            if tokens + quanta < self._quantum:
                left[name] = tokens + quanta
            else:
                del left[name]
