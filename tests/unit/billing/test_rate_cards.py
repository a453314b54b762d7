"""Rate cards are exact, dated, and never ambiguous."""

from pathlib import Path

import msgspec
import pytest

from support.billing.stand import MARCH_MS, MODEL
from support.fakes.rate_cards import SHIPPED_CARDS, rate_card
from tokenyard_billing.pricing.prices import PriceList, UnknownPrice
from tokenyard_billing.pricing.rate_cards import InvalidRateCard, RateCard, load_rate_cards, read_stored_card

CARD = """
version: "{version}"
effective_from: "{start}"
currency: USD
models:
  tiny:
    input: "{rate}"
    cached_input: "0.05"
    output: "0.40"
    training: "3"
    fine_tuned:
      input: "0.20"
      cached_input: "0.10"
      output: "0.80"
"""


def write(folder: Path, name: str, *, version: str, start: str, rate: str = "0.10") -> None:
    (folder / name).write_text(CARD.format(version=version, start=start, rate=rate))


def cards_of(folder: Path) -> list[RateCard]:
    return list(load_rate_cards(folder).values())


def test_the_shipped_cards_load_and_price_the_default_model() -> None:
    prices = PriceList(SHIPPED_CARDS)
    base = prices.price(MODEL, fine_tuned=False, at_ms=MARCH_MS)
    tuned = prices.price(MODEL, fine_tuned=True, at_ms=MARCH_MS)
    assert base is not None
    assert tuned is not None
    assert (base.input, base.cached_input, base.output, base.training) == (100, 50, 400, 3000)
    assert tuned.id == f"{base.id}/fine-tuned"
    assert prices.by_id(base.id) == base


def test_a_cards_checksum_never_changes_with_the_code(tmp_path: Path) -> None:
    """Installations remember it: another one would refuse every card in use as edited."""
    write(tmp_path, "a.yaml", version="2026-01", start="2026-01-01T00:00:00Z")
    [card] = cards_of(tmp_path)
    assert card.sha256 == "456744302e63a5069f42cc0b66532053943d166d8f5ed2e30644de2f998c747c"


def test_what_is_stored_has_a_price_of_its_own(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", version="2026-01", start="2026-01-01T00:00:00Z")
    (tmp_path / "a.yaml").write_text((tmp_path / "a.yaml").read_text() + 'storage_gb_month: "0.03"\n')
    [card] = cards_of(tmp_path)
    prices = PriceList([card])
    assert prices.price_of_use("storage", fine_tuned=False, at_ms=MARCH_MS) == card.storage_price
    assert (card.storage_price.id, card.storage_price.storage) == ("2026-01/storage", 30_000_000)
    assert prices.by_id(card.storage_price.id) == card.storage_price
    assert read_stored_card(card.canonical.decode(), card.sha256) == card


@pytest.mark.parametrize("rate", ["-1", "1001", "0.0000000001", "free"])
def test_a_wrong_price_of_what_is_stored_is_refused(tmp_path: Path, rate: str) -> None:
    write(tmp_path, "a.yaml", version="2026-01", start="2026-01-01T00:00:00Z")
    (tmp_path / "a.yaml").write_text((tmp_path / "a.yaml").read_text() + f'storage_gb_month: "{rate}"\n')
    with pytest.raises(InvalidRateCard, match="storage_gb_month"):
        cards_of(tmp_path)


def test_no_model_can_take_the_name_of_what_is_stored() -> None:
    with pytest.raises(InvalidRateCard, match="'storage'"):
        rate_card("2026-02", MARCH_MS, model="storage")


def test_a_stored_card_is_whole_and_proves_itself() -> None:
    card = rate_card("2026-02", MARCH_MS)
    assert read_stored_card(card.canonical.decode(), card.sha256) == card
    edited = msgspec.structs.replace(card, effective_from_ms=MARCH_MS + 1)
    with pytest.raises(InvalidRateCard, match=r"2026-02 was changed in the database"):
        read_stored_card(edited.canonical.decode(), card.sha256)
    with pytest.raises(InvalidRateCard, match="cannot be read"):
        read_stored_card("{", card.sha256)


def test_the_newest_card_in_force_decides(tmp_path: Path) -> None:
    write(tmp_path, "b.yaml", version="2026-02", start="2026-02-01T00:00:00Z", rate="0.30")
    write(tmp_path, "c.yaml", version="2026-01", start="2026-01-01T00:00:00Z")
    prices = PriceList(cards_of(tmp_path))
    starts = [card.effective_from_ms for card in prices.cards]
    rates = [
        price.input if (price := prices.price("tiny", fine_tuned=False, at_ms=at_ms)) else None
        for at_ms in (starts[0] - 1, starts[0], starts[1] - 1, starts[1])
    ]
    assert rates == [None, 100, 100, 300]
    assert prices.price("other", fine_tuned=False, at_ms=starts[1]) is None
    with pytest.raises(UnknownPrice):
        prices.by_id("2026-03/tiny")


def test_who_holds_a_price_list_sees_the_cards_that_come_later() -> None:
    prices = PriceList([rate_card("one", 1_000)])
    prices.add([rate_card("two", 2_000), rate_card("one", 3_000)])
    assert [card.version for card in prices.cards] == ["one", "two"]
    assert prices.cards[0].effective_from_ms == 1_000
    price = prices.price(MODEL, fine_tuned=False, at_ms=2_000)
    assert price is not None
    assert price.id == f"two/{MODEL}"


def test_a_use_without_a_price_in_force_is_charged_by_the_nearest_of_its_model() -> None:
    """A withdrawn model goes by its last price, one that came too early by its first."""
    prices = PriceList(
        [rate_card("1", 1_000), rate_card("2", 2_000, model="late"), rate_card("3", 3_000), rate_card("4", 4_000)]
    )

    def card_of(model: str, at_ms: int) -> str:
        return prices.price_of_use(model, fine_tuned=True, at_ms=at_ms).id

    assert card_of(MODEL, 500) == f"1/{MODEL}/fine-tuned"
    assert card_of(MODEL, 2_500) == f"1/{MODEL}/fine-tuned"
    assert card_of(MODEL, 3_500) == f"3/{MODEL}/fine-tuned"
    assert card_of("late", 1_500) == card_of("late", 2_000) == card_of("late", 9_000) == "2/late/fine-tuned"
    with pytest.raises(UnknownPrice, match="no rate card has a price of other"):
        card_of("other", 2_000)


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (("0.10", "0.0001"), "finer than one nano-dollar"),
        (("0.10", "-1"), "negative"),
        (("0.10", "cheap"), "not an amount"),
        (("USD", "EUR"), "only USD"),
        (("00:00:00Z", "00:00:00"), "time zone"),
        (("2026-01-01T00:00:00Z", "9999-12-31T00:00:00Z"), "no date of ours"),
        (("training", "trainings"), "unknown field"),
        (('    training: "3"\n', ""), "go together"),
        (('    output: "0.40"\n', ""), "missing required field"),
        (('    training: "3"\n', '    training: "3"\n    training: "4"\n'), "stands twice"),
        (('"2026-01"', '"2026\\t01"'), "version"),
    ],
)
def test_a_card_that_is_not_exact_is_refused_by_name(tmp_path: Path, edit: tuple[str, str], complaint: str) -> None:
    text = CARD.format(version="2026-01", start="2026-01-01T00:00:00Z", rate="0.10")
    assert edit[0] in text
    (tmp_path / "card.yaml").write_text(text.replace(*edit, 1))
    with pytest.raises(InvalidRateCard, match=complaint) as refused:
        load_rate_cards(tmp_path)
    assert "card.yaml" in str(refused.value)


def test_two_models_whose_prices_would_have_one_name_are_refused(tmp_path: Path) -> None:
    text = CARD.format(version="2026-01", start="2026-01-01T00:00:00Z", rate="0.10")
    tiny = text[text.index("  tiny:") :]
    (tmp_path / "card.yaml").write_text(text + tiny.replace("tiny", "tiny/fine-tuned"))
    with pytest.raises(InvalidRateCard, match="ends in /fine-tuned"):
        load_rate_cards(tmp_path)


def test_comments_do_not_change_a_card_and_rates_do(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", version="one", start="2026-01-01T00:00:00Z")
    [before] = cards_of(tmp_path)
    (tmp_path / "a.yaml").write_text("# a note\n" + (tmp_path / "a.yaml").read_text())
    assert cards_of(tmp_path)[0].sha256 == before.sha256
    write(tmp_path, "a.yaml", version="one", start="2026-01-01T00:00:00Z", rate="0.11")
    assert cards_of(tmp_path)[0].sha256 != before.sha256


@pytest.mark.parametrize("rate", ["1000000.001", "1e18"])
def test_a_rate_is_at_most_a_dollar_a_token(rate: str) -> None:
    """So that no charge, and no sum of charges, leaves 64 bits: a published card is never withdrawn."""
    assert rate_card("dear", MARCH_MS, output="1000000").prices[0].output == 1_000_000_000
    with pytest.raises(InvalidRateCard, match="output is above"):
        rate_card("dear", MARCH_MS, output=rate)


SHARED = """
version: "{version}"
effective_from: "2026-01-01T00:00:00Z"
currency: USD
classes:
  small: {{input: "0.10", cached_input: "0.05", output: "0.40"}}
models:
  tiny: small
  other: {other}
"""


def test_models_of_one_price_class_cost_the_same_and_the_card_is_whole(tmp_path: Path) -> None:
    own = '{input: "0.10", cached_input: "0.05", output: "0.40"}'
    (tmp_path / "card.yaml").write_text(SHARED.format(version="1", other="small"))
    (shared,) = cards_of(tmp_path)
    (tmp_path / "card.yaml").write_text(SHARED.format(version="1", other=own))
    (stated,) = cards_of(tmp_path)
    assert shared == stated
    assert [(price.model, price.output) for price in shared.prices] == [("other", 400), ("tiny", 400)]
    assert read_stored_card(shared.canonical.decode(), shared.sha256) == shared


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("tiny: small", "tiny: large"), "tiny: there is no price class 'large': small"),
        (("classes:\n  small: {", "classes: {"), "tiny: there is no price class 'small'"),
        (('{input: "0.10", ', '{input: "-1", '), "other: input is negative"),
    ],
)
def test_a_price_class_that_is_none_is_refused(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    (tmp_path / "card.yaml").write_text(SHARED.format(version="1", other="small").replace(*change))
    with pytest.raises(InvalidRateCard, match=rf"card\.yaml: .*{message}"):
        cards_of(tmp_path)
