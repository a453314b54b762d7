"""The two witnesses (I2): every token that a replica reported is charged, waste, or a named difference."""

from collections.abc import Mapping

from sqlalchemy import Select, case, exists, func, literal, select, union_all
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard_billing.charging.reports import ReportWitness
from tokenyard_billing.proof.checks.comparison import EXAMPLES, broken, noted
from tokenyard_billing.proof.views import Difference, TokenSums
from tokenyard_billing.tables import Charge, OpenRequest, UsageReport, Waste

_REPLICA = UsageReport.witness == ReportWitness.REPLICA
_SAID = (UsageReport.prompt_tokens + UsageReport.completion_tokens).label("tokens")
_BILLED = (Charge.prompt_tokens + Charge.completion_tokens).label("tokens")
_WASTED = (Waste.prompt_tokens + Waste.completion_tokens).label("tokens")
_EXPECTED = "served_elsewhere"  # it has no second witness: nothing to look at
_Tokens = Select[str | None, str, int]  # attempt or charge key, organization, tokens


async def check_witnesses(session: AsyncSession) -> tuple[TokenSums, list[Difference]]:
    """Explain each organization's tokens by themselves: one's surplus does not make good what another lacks."""
    named = _named()
    parts: dict[str, _Tokens] = {
        "reported": select(UsageReport.attempt, UsageReport.organization, _SAID).where(_REPLICA),
        # A correction changes what is paid, and not what was used.
        "charged": select(Charge.charge_key, Charge.organization, _BILLED).where(Charge.correction.is_(None)),
        "waste": select(Waste.attempt, Waste.organization, _WASTED),
        **named,
    }
    rows = [(part, query.subquery().c) for part, query in parts.items()]
    labelled = [select(literal(part).label("part"), row.organization, row.tokens) for part, row in rows]
    all_of = union_all(*labelled).subquery().c
    by_part = select(all_of.part, func.sum(all_of.tokens)).group_by(all_of.part)
    sums = dict.fromkeys(parts, 0) | {part: int(total) for part, total in await session.execute(by_part)}
    reported, charged, waste = (sums.pop(part) for part in ("reported", "charged", "waste"))
    unexplained = reported - charged - waste - sum(sums.values())

    missing = func.sum(case((all_of.part == "reported", all_of.tokens), else_=-all_of.tokens))
    differing = select(all_of.organization, missing).group_by(all_of.organization).having(missing != 0)
    found = [
        broken("tokens_unexplained", organization, f"{tokens:+} tokens")
        for organization, tokens in await session.execute(differing.order_by(all_of.organization).limit(EXAMPLES))
    ]
    del named[_EXPECTED]
    found += await _examples(session, named)
    return TokenSums(reported=reported, charged=charged, waste=waste, named=sums, unexplained=unexplained), found


def _named() -> dict[str, _Tokens]:
    """Return the differences that have an honest reason."""
    vouched = exists().where(UsageReport.attempt == Charge.attempt, _REPLICA)
    of_gateway = (UsageReport.attempt == Charge.attempt, UsageReport.witness == ReportWitness.GATEWAY)
    elsewhere = exists().where(*of_gateway, UsageReport.replica != "")
    unvouched = select(Charge.attempt, Charge.organization, (-_BILLED).label("tokens")).where(
        Charge.attempt.is_not(None), _BILLED > 0, ~vouched
    )
    said_of_charged = select(UsageReport.attempt, UsageReport.organization, (_SAID - _BILLED).label("tokens"))
    return {
        "replica_silent": unvouched.where(~elsewhere),
        _EXPECTED: unvouched.where(elsewhere),
        "counts_differ": said_of_charged.join(Charge, Charge.attempt == UsageReport.attempt).where(
            _REPLICA, _SAID != _BILLED
        ),
        "undecided": select(UsageReport.attempt, UsageReport.organization, _SAID)
        .join(OpenRequest, OpenRequest.request == UsageReport.request)
        .where(_REPLICA),
    }


async def _examples(session: AsyncSession, named: Mapping[str, _Tokens]) -> list[Difference]:
    return [
        noted(name, str(attempt), f"{organization}: {tokens:+} tokens")
        for name, query in named.items()
        for attempt, organization, tokens in await session.execute(query.limit(EXAMPLES))
    ]
