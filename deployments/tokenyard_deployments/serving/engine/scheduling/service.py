"""How much service each organization was given: virtual token counters.

Source: Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024 (VTC). A prompt token counts 1, a generated
one 2, both divided by the organization's weight.
"""

from collections.abc import Collection

PROMPT_TOKEN = 1.0
GENERATED_TOKEN = 2.0
# Organizations that have nothing in the engine but were served more than those who wait: their debt is remembered.
MAX_REMEMBERED = 4096


class WeightedService:
    """Counters only grow. A newcomer starts at the least of those who wait, so nobody saves up service by staying away.

    Of two organizations that both wait all the time, the service differs by no more than
    2 × (max(longest prompt, 2 × most tokens in a batch) + quantum) ÷ the smaller weight: the bound of VTC's theorem 4.4
    with the quantum that deficit longest-prefix match adds to it (Cao et al., arXiv 2501.14312, theorem 1).
    """

    def __init__(self) -> None:
        self._counters: dict[str, float] = {}
        self._weights: dict[str, int] = {}
        # Of the organization that waited last: where a newcomer starts while nobody waits.
        self._level = 0.0

    def of(self, organization: str) -> float:
        return self._counters.get(organization, self._level)

    def weight(self, organization: str) -> int:
        return self._weights.get(organization, 1)

    def arrive(self, organization: str, weight: int, waiting: Collection[str]) -> None:
        """Note a new sequence; `waiting` are the organizations that have one waiting already."""
        self._weights[organization] = max(1, weight)
        if organization in waiting:
            return
        level = min((self._counters[one] for one in waiting), default=self._level)
        self._counters[organization] = max(self._counters.get(organization, 0.0), level)

    def waits_no_more(self, organization: str) -> None:
        """Note that the last waiting sequence of an organization was admitted or has gone."""
        self._level = self.of(organization)

    def charge(self, organization: str, prompt_tokens: int, generated_tokens: int) -> None:
        service = PROMPT_TOKEN * prompt_tokens + GENERATED_TOKEN * generated_tokens
        self._counters[organization] = self.of(organization) + service / self.weight(organization)

    def forget(self, present: Collection[str]) -> None:
        """Drop the counters that would not be told from a newcomer's; `present` have something in the engine."""
        absent = [one for one in self._counters if one not in present]
        over_served = sorted((one for one in absent if self._counters[one] > self._level), key=self.of)
        kept = set(over_served[-MAX_REMEMBERED:])
        for organization in absent:
            if organization not in kept:
                del self._counters[organization]
                del self._weights[organization]

    def __len__(self) -> int:
        return len(self._counters)
