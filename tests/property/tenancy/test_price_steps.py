"""By what prices are multiplied at a moment: what the plan of that moment said of that moment, and nothing else."""

from collections.abc import Mapping, Sequence

from hypothesis import given
from hypothesis import strategies as st

from tokenyard.core.money import LIST_PRICE, Multiplier, PriceStep, multiplier_at
from tokenyard.tenancy.plans.prices import in_force, steps_of

TIERS = ("default", "flex", "priority")
moments = st.integers(0, 30)
multipliers = st.integers(0, 9).map(Multiplier)
steps = st.builds(PriceStep, moments, multipliers, st.dictionaries(st.sampled_from(TIERS[1:]), multipliers))


def _in_order(found: list[PriceStep]) -> list[PriceStep]:
    return sorted({step.from_ms: step for step in found}.values(), key=lambda step: step.from_ms)


histories = st.lists(steps, max_size=5).map(_in_order)
plans = st.dictionaries(st.sampled_from(["basic", "pro"]), histories)
moves = st.dictionaries(moments, st.sampled_from(["basic", "pro", "none"]), max_size=5)


def _said(plans: Mapping[str, Sequence[PriceStep]], moves: Mapping[int, str], tier: str, at_ms: int) -> Multiplier:
    """Return what holds, by looking at each moment afresh."""
    past = [moved_ms for moved_ms in moves if moved_ms <= at_ms]
    prices = plans.get(moves[max(past)], ()) if past else ()
    said = [price for price in prices if price.from_ms <= at_ms]
    return said[-1].tiers.get(tier, said[-1].multiplier) if said else LIST_PRICE


@given(plans, moves, st.sampled_from(TIERS), st.integers(0, 40), st.integers(0, 40))
def test_the_plan_of_the_moment_decides(
    plans: Mapping[str, Sequence[PriceStep]], moves: Mapping[int, str], tier: str, now_ms: int, later_ms: int
) -> None:
    stated = [(moved_ms, plans.get(moves[moved_ms], ())) for moved_ms in sorted(moves)]
    found = steps_of(stated, PriceStep(0, LIST_PRICE))
    assert multiplier_at(found, tier, now_ms) == _said(plans, moves, tier, now_ms)
    later_ms = max(now_ms, later_ms)
    assert multiplier_at(in_force(found, now_ms), tier, later_ms) == _said(plans, moves, tier, later_ms)
