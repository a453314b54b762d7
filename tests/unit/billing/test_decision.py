"""The charge table, every row, in every order."""

from itertools import permutations, product

import pytest

from support.billing.stand import claims, expired, reported, settled, usage
from tokenyard.core.usage import TokenUsage
from tokenyard.metering.events import HoldExpired, Outcome, ReplicaReported, Settled
from tokenyard_billing.charging.decision import NOTHING, Charged, Rule, decide, judge_late
from tokenyard_billing.charging.reports import Report, report_of

RELAYED = usage(10, 5)
COUNTED = usage(10, 7)
OTHER = usage(10, 3)
FIRST, SECOND = claims("req_a", 1), claims("req_a", 2)
ELSEWHERE = claims("req_a", 2, server="sold")

# what was said, whether it was waited for -> rule, charged attempt, usage; None: wait
TABLE: list[tuple[list[Settled | ReplicaReported | HoldExpired], bool, tuple[Rule, str | None, TokenUsage] | None]] = [
    ([], True, None),
    ([reported(FIRST, COUNTED)], False, None),
    ([reported(FIRST, COUNTED)], True, None),
    ([settled(FIRST, RELAYED)], False, (Rule.COMPLETED, "req_a.1", RELAYED)),
    ([settled(SECOND, RELAYED), reported(FIRST, OTHER)], False, (Rule.COMPLETED, "req_a.2", RELAYED)),
    ([settled(FIRST, RELAYED, Outcome.CLIENT_LEFT)], False, None),
    ([settled(FIRST, RELAYED, Outcome.CLIENT_LEFT)], True, (Rule.CLIENT_LEFT_UNREPORTED, "req_a.1", RELAYED)),
    ([settled(SECOND, RELAYED, Outcome.CLIENT_LEFT), reported(FIRST, OTHER)], False, None),
    (
        [settled(FIRST, RELAYED, Outcome.CLIENT_LEFT), reported(FIRST, COUNTED)],
        False,
        (Rule.CLIENT_LEFT, "req_a.1", COUNTED),
    ),
    (
        [settled(FIRST, RELAYED, Outcome.REPLICA_LOST), reported(FIRST, COUNTED)],
        False,
        (Rule.REPLICA_LOST, "req_a.1", RELAYED),
    ),
    ([settled(ELSEWHERE, RELAYED)], False, (Rule.COMPLETED, "req_a.2", RELAYED)),
    ([settled(ELSEWHERE, RELAYED, Outcome.LEFT_ELSEWHERE)], False, (Rule.LEFT_ELSEWHERE, "req_a.2", RELAYED)),
    (
        [settled(ELSEWHERE, RELAYED, Outcome.LEFT_ELSEWHERE), reported(FIRST, OTHER)],
        False,
        (Rule.LEFT_ELSEWHERE, "req_a.2", RELAYED),
    ),
    ([settled(FIRST, NOTHING, Outcome.FAILED)], False, (Rule.FAILED, None, NOTHING)),
    ([settled(FIRST, NOTHING, Outcome.FAILED), reported(FIRST, COUNTED)], False, (Rule.FAILED, None, NOTHING)),
    ([expired(FIRST)], False, None),
    ([expired(FIRST), reported(FIRST, COUNTED)], False, None),
    ([expired(FIRST)], True, (Rule.UNREPORTED, "req_a.1", NOTHING)),
    (
        [expired(FIRST), reported(FIRST, OTHER), reported(SECOND, COUNTED)],
        True,
        (Rule.GATEWAY_LOST, "req_a.2", COUNTED),
    ),
    ([expired(FIRST), settled(FIRST, RELAYED), reported(FIRST, RELAYED)], False, (Rule.COMPLETED, "req_a.1", RELAYED)),
    (
        [expired(FIRST), settled(FIRST, RELAYED, Outcome.CLIENT_LEFT)],
        True,
        (Rule.CLIENT_LEFT_UNREPORTED, "req_a.1", RELAYED),
    ),
]


@pytest.mark.parametrize(("said", "waited", "expected"), TABLE)
def test_the_charge_table_in_every_order(
    said: list[Settled | ReplicaReported | HoldExpired],
    waited: bool,
    expected: tuple[Rule, str | None, TokenUsage] | None,
) -> None:
    for order in permutations(said):
        decision = decide([report_of(event, 0) for event in order], waited=waited)
        found = (decision.rule, decision.attempt, decision.usage) if decision else None
        assert found == expected


def _witnesses() -> list[list[Report]]:
    """Every combination of: how the gateway ended, whether the hold expired, which attempts a replica reported."""
    combinations = []
    gateways = [None, *(settled(SECOND, RELAYED, outcome) for outcome in Outcome)]
    for gateway, hold, one, two in product(gateways, (None, expired(FIRST)), (0, 1), (0, 1)):
        events = [gateway, hold, reported(FIRST, OTHER) if one else None, reported(SECOND, COUNTED) if two else None]
        combinations.append([report_of(event, 0) for event in events if event])
    return combinations


@pytest.mark.parametrize("said", _witnesses())
def test_every_replicas_report_is_charged_or_waste_and_never_both(said: list[Report]) -> None:
    decision = decide(said, waited=True)
    replicas = {report.attempt for report in said if report.witness == "replica"}
    if decision is None:
        assert {report.witness for report in said} <= {"replica"}
        return
    wasted = {report.attempt for report in decision.waste}
    assert decision.attempt not in wasted
    assert wasted == replicas - {decision.attempt}


@pytest.mark.parametrize("said", _witnesses())
def test_a_report_that_comes_late_is_accounted_for_as_if_it_had_come_in_time(said: list[Report]) -> None:
    """Take one replica's report away, decide, and bring it afterwards: it is waste, or the charged attempt's own."""
    for late in said:
        rest = [report for report in said if report is not late]
        decision = decide(rest, waited=True)
        if late.witness != "replica" or decision is None:
            continue
        judged = judge_late(Charged(decision.rule, decision.attempt, decision.usage), late)
        assert judged.waste == (late.attempt != decision.attempt)


def test_a_late_report_where_the_charge_was_an_estimate_is_an_alarm() -> None:
    late = report_of(reported(FIRST, COUNTED), 0)
    for rule in (Rule.CLIENT_LEFT_UNREPORTED, Rule.UNREPORTED):
        assert [finding.kind for finding in judge_late(Charged(rule, "req_a.1", RELAYED), late).findings] == [
            "late_report"
        ]
    assert judge_late(Charged(Rule.COMPLETED, "req_a.1", COUNTED), late).findings == ()
    differs = judge_late(Charged(Rule.COMPLETED, "req_a.1", RELAYED), late)
    assert [finding.kind for finding in differs.findings] == ["witnesses_differ"]


def test_a_gateway_that_settles_after_it_was_given_up_is_an_alarm() -> None:
    late = report_of(settled(FIRST, RELAYED), 0)
    for rule in (Rule.GATEWAY_LOST, Rule.UNREPORTED):
        findings = judge_late(Charged(rule, "req_a.1", NOTHING), late).findings
        assert [finding.kind for finding in findings] == ["late_settlement"]


def test_where_nobody_else_would_have_reported_the_alarm_says_so() -> None:
    decision = decide([report_of(expired(claims("req_a", server="sold")), 0)], waited=True)
    assert decision is not None
    (finding,) = decision.findings
    assert (finding.kind, "elsewhere reports nothing" in finding.message) == ("unreported", True)
