"""Rate cards are exact, dated, and never ambiguous."""

from pathlib import Path

import pytest

from support.billing_stand import MARCH_MS, MODEL
from tokenyard_billing.pricing.prices import PriceList, UnknownPrice
from tokenyard_billing.pricing.rate_cards import InvalidRateCard, load_rate_cards

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


def test_the_shipped_cards_load_and_price_the_default_model() -> None:
    prices = PriceList.load(Path(__file__).parents[3] / "billing" / "prices")
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
    [card] = load_rate_cards(tmp_path)
    assert card.sha256 == "456744302e63a5069f42cc0b66532053943d166d8f5ed2e30644de2f998c747c"


def test_the_newest_card_in_force_decides(tmp_path: Path) -> None:
    write(tmp_path, "b.yaml", version="2026-02", start="2026-02-01T00:00:00Z", rate="0.30")
    write(tmp_path, "a.yaml", version="2026-01", start="2026-01-01T00:00:00Z")
    prices = PriceList.load(tmp_path)
    starts = [card.effective_from_ms for card in prices.cards]
    rates = [
        price.input if (price := prices.price("tiny", fine_tuned=False, at_ms=at_ms)) else None
        for at_ms in (starts[0] - 1, starts[0], starts[1] - 1, starts[1])
    ]
    assert rates == [None, 100, 100, 300]
    assert prices.price("other", fine_tuned=False, at_ms=starts[1]) is None
    with pytest.raises(UnknownPrice):
        prices.by_id("2026-03/tiny")


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (("0.10", "0.0001"), "finer than one nano-dollar"),
        (("0.10", "-1"), "negative"),
        (("0.10", "cheap"), "not an amount"),
        (("USD", "EUR"), "only USD"),
        (("00:00:00Z", "00:00:00"), "time zone"),
        (("training", "trainings"), "unknown field"),
        (('    output: "0.40"\n', ""), "missing required field"),
        (('    training: "3"\n', '    training: "3"\n    training: "4"\n'), "stands twice"),
    ],
)
def test_a_card_that_is_not_exact_is_refused_by_name(tmp_path: Path, edit: tuple[str, str], complaint: str) -> None:
    text = CARD.format(version="2026-01", start="2026-01-01T00:00:00Z", rate="0.10")
    assert edit[0] in text
    (tmp_path / "card.yaml").write_text(text.replace(*edit, 1))
    with pytest.raises(InvalidRateCard, match=complaint) as refused:
        load_rate_cards(tmp_path)
    assert "card.yaml" in str(refused.value)


def test_two_cards_of_one_moment_or_name_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", version="one", start="2026-01-01T00:00:00Z")
    write(tmp_path, "b.yaml", version="two", start="2026-01-01T01:00:00+01:00")
    with pytest.raises(InvalidRateCard, match="same moment"):
        load_rate_cards(tmp_path)
    write(tmp_path, "b.yaml", version="one", start="2026-02-01T00:00:00Z")
    with pytest.raises(InvalidRateCard, match="same version"):
        load_rate_cards(tmp_path)


def test_a_folder_without_cards_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRateCard, match="no rate card"):
        load_rate_cards(tmp_path)


def test_comments_do_not_change_a_card_and_rates_do(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", version="one", start="2026-01-01T00:00:00Z")
    [before] = load_rate_cards(tmp_path)
    (tmp_path / "a.yaml").write_text("# a note\n" + (tmp_path / "a.yaml").read_text())
    assert load_rate_cards(tmp_path)[0].sha256 == before.sha256
    write(tmp_path, "a.yaml", version="one", start="2026-01-01T00:00:00Z", rate="0.11")
    assert load_rate_cards(tmp_path)[0].sha256 != before.sha256
