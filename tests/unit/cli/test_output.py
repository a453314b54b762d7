"""What commands print."""

from tokenyard.cli.output import details, dollars, moment, table


def test_a_table_is_aligned_numbers_to_the_right() -> None:
    rows = [("small", 7, "$0.10"), ("a-longer-name", 12_345, None)]
    assert table(("MODEL", "TOKENS", "COST"), rows) == (
        "MODEL          TOKENS  COST\n"
        "small               7  $0.10\n"
        "a-longer-name  12,345  -"
    )  # fmt: skip


def test_an_empty_table_says_so() -> None:
    assert table(("A",), [], empty="No jobs.") == "No jobs."


def test_details_show_nested_things_indented() -> None:
    data = {
        "charge_key": "req_1",
        "claims": {"model": "m"},
        "reports": [{"witness": "gateway"}],
        "names": [],
        "ok": True,
    }
    assert details(data).splitlines() == [
        "charge key: req_1",
        "claims:",
        "  model: m",
        "reports:",
        "  -",
        "    witness: gateway",
        "names: -",
        "ok: yes",
    ]


def test_money_and_time_are_exact() -> None:
    assert dollars(39_000) == "$0.000039"
    assert dollars(-5_000_000_000) == "-$5.00"
    assert dollars(None) == "-"
    assert moment(0) == "1970-01-01 00:00:00"
