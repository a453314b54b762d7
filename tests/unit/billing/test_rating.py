"""The moment of admission decides the price; what the gateway claimed is only compared."""

from dataclasses import dataclass

import msgspec
import pytest

from support.billing.stand import MODEL, claims, trained
from support.fakes.rate_cards import rate_card
from tokenyard.core.adapters import AdapterRef
from tokenyard.core.clock import HONEST_MS
from tokenyard.core.ids import AdapterId, PriceId
from tokenyard.core.money import Multiplier, PriceStep
from tokenyard_billing.charging.rating import Rating, rate, unknown_price
from tokenyard_billing.pricing.prices import PriceList, UnknownPrice

START_MS = 1_780_000_000_000
PRICES = PriceList([rate_card("old", START_MS - 10**9), rate_card("new", START_MS, output="9")])
OLD, NEW = f"old/{MODEL}", f"new/{MODEL}"
ADAPTER = AdapterRef(AdapterId("0123"), "ft:x", "a/b", "0" * 64)


@dataclass(frozen=True)
class Case:
    """When it was admitted (ms after the new card's start), what was claimed, what is charged, whether it alarms."""

    after_ms: int
    claimed: str
    charged: str
    alarm: bool


CASES = [
    Case(-60_000, OLD, OLD, alarm=False),
    Case(+60_000, NEW, NEW, alarm=False),
    Case(+60_000, OLD, NEW, alarm=True),  # a stale gateway
    Case(-60_000, NEW, OLD, alarm=True),  # a gateway whose clock is ahead
    Case(+HONEST_MS - 1, OLD, NEW, alarm=False),
    Case(+HONEST_MS, OLD, NEW, alarm=True),
    Case(-HONEST_MS, NEW, OLD, alarm=False),
    Case(-HONEST_MS - 1, NEW, OLD, alarm=True),
    Case(+1, f"{OLD}/fine-tuned", NEW, alarm=True),  # forged: the other kind's price, also near the start
    Case(+60_000, f"{NEW}/fine-tuned", NEW, alarm=True),
    Case(+60_000, "new/no-such-model", NEW, alarm=True),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_request_is_charged_by_the_price_in_force_when_it_was_admitted(case: Case) -> None:
    use = claims("req_a", price=PriceId(case.claimed), admitted_at_ms=START_MS + case.after_ms)
    rating = rate(PRICES, (), use)
    assert rating.price.id == case.charged
    assert [(found.kind, found.subject) for found in rating.findings] == [("price_differs", "req_a")] * case.alarm
    for finding in rating.findings:
        assert case.claimed in finding.message
        assert case.charged in finding.message


def test_an_adapter_decides_the_kind_and_not_the_claim() -> None:
    use = claims("req_a", price=PriceId(NEW), adapter=ADAPTER, admitted_at_ms=START_MS + 60_000)
    assert rate(PRICES, (), use).price.id == f"{NEW}/fine-tuned"
    assert rate(PRICES, (), msgspec.structs.replace(use, price=PriceId(f"{NEW}/fine-tuned"))).findings == ()


def test_training_is_charged_at_its_base_models_price() -> None:
    event = msgspec.structs.replace(trained("ftjob-1", 5), price=PriceId(OLD), admitted_at_ms=START_MS + 60_000)
    rating = rate(PRICES, (), event)
    assert (rating.price.id, [found.subject for found in rating.findings]) == (NEW, ["ftjob-1"])


@pytest.mark.parametrize(
    ("price", "model"), [("later/" + MODEL, MODEL), ("no-card", MODEL), (NEW, "unpriced"), (NEW, MODEL + "/fine-tuned")]
)
def test_what_no_known_card_explains_waits(price: str, model: str) -> None:
    use = claims("req_a", price=PriceId(price), base_model=model, admitted_at_ms=START_MS + 60_000)
    with pytest.raises(UnknownPrice) as unknown:
        rate(PRICES, (), use)
    finding = unknown_price(msgspec.structs.replace(use, price=PriceId("p" * 300)), unknown.value)
    assert (finding.kind, finding.subject) == ("price_unknown", "p" * 128)


MOVED_MS = START_MS + 10**6
STEPS = (
    PriceStep(START_MS, Multiplier(8_000)),
    PriceStep(MOVED_MS, Multiplier(12_000), {"flex": Multiplier(5_000)}),
)
MULTIPLIED = [
    Case(+60_000, f"{NEW}@0.8", f"{NEW}@0.8", alarm=False),
    Case(-60_000, OLD, OLD, alarm=False),
    Case(+60_000, NEW, f"{NEW}@0.8", alarm=True),  # a gateway that does not know the plan
    Case(+60_000, f"{NEW}@0.5", f"{NEW}@0.8", alarm=True),  # forged: cheaper than the plan
    Case(-60_000, f"{OLD}@0.8", OLD, alarm=True),  # not yet in force
    Case(+60_000, f"{NEW}@nonsense", f"{NEW}@0.8", alarm=True),
    Case(10**6 + 60_000, f"{NEW}@0.8", f"{NEW}@1.2", alarm=True),  # a stale plan
    Case(10**6 + HONEST_MS - 1, f"{NEW}@0.8", f"{NEW}@1.2", alarm=False),
    Case(10**6 + HONEST_MS, f"{NEW}@0.8", f"{NEW}@1.2", alarm=True),
    Case(+HONEST_MS - 1, OLD, f"{NEW}@0.8", alarm=False),  # a card and a multiplier at once
]


@pytest.mark.parametrize("case", MULTIPLIED, ids=str)
def test_the_plan_of_the_moment_multiplies_the_price_whatever_was_claimed(case: Case) -> None:
    use = claims("req_a", price=PriceId(case.claimed), admitted_at_ms=START_MS + case.after_ms)
    rating = rate(PRICES, STEPS, use)
    assert rating.price.id == case.charged
    assert [found.kind for found in rating.findings] == ["price_differs"] * case.alarm


@pytest.mark.parametrize(("tier", "multiplier"), [("default", "1.2"), ("flex", "0.5"), ("priority", "1.2")])
def test_a_service_tier_may_have_a_multiplier_of_its_own(tier: str, multiplier: str) -> None:
    price = PriceId(f"{NEW}@{multiplier}")
    use = claims("req_a", price=price, tier=tier, admitted_at_ms=MOVED_MS + 60_000)
    assert rate(PRICES, STEPS, use) == Rating(PRICES.by_id(price))


def test_training_costs_what_the_plan_says_of_no_tier() -> None:
    price = PriceId(f"{NEW}@1.2")
    event = msgspec.structs.replace(trained("ftjob-1", 5), price=price, admitted_at_ms=MOVED_MS + 60_000)
    assert rate(PRICES, STEPS, event) == Rating(PRICES.by_id(price))
