"""What commands print."""

from tokenyard.cli.money.commands import reconciliation_text
from tokenyard.cli.output import described, details, dollars, moment, table
from tokenyard.clients.platform_api.proof_shapes import ReconciliationInfo
from tokenyard.clients.platform_api.shapes import OrganizationInfo


def test_a_table_is_aligned_numbers_to_the_right() -> None:
    rows = [("small", 7, "$0.10"), ("a-longer-name", 12_345, None)]
    assert table(("MODEL", "TOKENS", "COST"), rows) == (
        "MODEL          TOKENS  COST\n"
        "small               7  $0.10\n"
        "a-longer-name  12,345  -"
    )  # fmt: skip


def test_what_others_wrote_steers_no_terminal() -> None:
    """Such as the answer of a tenant's server: it neither erases a line nor adds one."""
    written = "ok\x1b[2K\r\n\x9b1A\u202efine"
    assert table(("ANSWER",), [(written,)]).splitlines() == ["ANSWER", "ok [2K   1A fine"]
    assert details({"answer": written}) == "answer: ok [2K   1A fine"


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


def test_times_are_said_in_words() -> None:
    data = {"id": "org_1", "slug": "acme", "name": "Acme", "limits": {}, "created_at": 1_700_000_000}
    shown = {
        prices_from_ms: described(OrganizationInfo.model_validate({**data, "prices_from_ms": prices_from_ms})).text
        for prices_from_ms in (0, 1_700_000_900_000)
    }
    assert "created at: 2023-11-14 22:13:20" in shown[0]
    assert "prices from: -" in shown[0]
    assert "prices from: 2023-11-14 22:28:20" in shown[1_700_000_900_000]


def test_what_is_broken_comes_first() -> None:
    tokens = {"reported": 10_000, "named": {"replica_silent": -3}}
    differences = [
        {"name": "replica_silent", "subject": "req_a.1", "detail": "org_a: -3 tokens", "broken": False},
        {"name": "pending_phantom", "subject": "wallet:org_a/req_b", "detail": "5 nano-dollars", "broken": True},
    ]
    found = ReconciliationInfo.model_validate({"ok": False, "differences": differences, "tokens": tokens})
    assert reconciliation_text(found).splitlines() == [
        "        DIFFERENCE       WHERE               WHAT",
        "broken  pending_phantom  wallet:org_a/req_b  5 nano-dollars",
        "may be  replica_silent   req_a.1             org_a: -3 tokens",
        "",
        "tokens:",
        "  reported: 10,000",
        "  named:",
        "    replica silent: -3",
    ]


def test_money_and_time_are_exact() -> None:
    assert dollars(39_000) == "$0.000039"
    assert dollars(-5_000_000_000) == "-$5.00"
    assert dollars(None) == "-"
    assert moment(0) == "1970-01-01 00:00:00"
