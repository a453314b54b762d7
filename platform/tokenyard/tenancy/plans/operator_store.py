"""The operator's plans. They belong to no organization."""

from collections.abc import Mapping, Sequence

from sqlalchemy import func, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.clock import Clock
from tokenyard.core.errors import Conflict, NotFound
from tokenyard.core.ids import ApiKeyId, OrganizationId, PlanId, new_plan_id
from tokenyard.storage.database import Database
from tokenyard.storage.paging import part_of_list
from tokenyard.storage.transactional_outbox import OutboxMessage
from tokenyard.tenancy.changes import PlanRevised, write_change
from tokenyard.tenancy.plans.prices import publish_new_plan, publish_prices
from tokenyard.tenancy.plans.rules import Rules
from tokenyard.tenancy.plans.views import PlanView
from tokenyard.tenancy.store import AuditedChange, LimitsChange, record, write_changes
from tokenyard.tenancy.tables import OrganizationRow, PlanRow


class PlanOperatorStore:
    """A plan goes by its id or its name; an unknown one raises `NotFound`."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def create(self, stated: Mapping[str, object], *, actor: ApiKeyId) -> PlanView:
        """Make a plan of the row's values; a name that another has raises `Conflict`."""
        now_ms = self._clock.now_ms()
        now = now_ms // 1000
        row = PlanRow(id=new_plan_id(), created_at=now)
        change = AuditedChange(row)
        for attribute, value in stated.items():
            change.set(attribute, value)
        change.before.clear()
        try:
            async with self._database.transaction() as session:
                session.add(row)
                publish_new_plan(session, row, now_ms)
                record(session, None, actor, "plan.created", row.id, at=now, change=change)
        except IntegrityError as error:
            raise _taken(row.name) from error
        return PlanView.model_validate(row)

    async def plans(self, *, after: str | None, limit: int) -> Sequence[PlanView]:
        """Return plans in the order of their creation, beginning behind the one called `after`."""
        columns = PlanRow.created_at, PlanRow.id
        async with self._database.reading() as session:
            last = None if after is None else await plan_of(session, after)
            part = part_of_list(select(PlanRow), *columns, after=last, limit=limit, newest_first=False)
            return [PlanView.model_validate(row) for row in await session.scalars(part)]

    async def plan(self, reference: str) -> PlanView:
        async with self._database.reading() as session:
            return PlanView.model_validate(await plan_of(session, reference))

    async def change(
        self, reference: str, *, name: str | None, limits: LimitsChange | None, rules: Rules, actor: ApiKeyId
    ) -> tuple[PlanView, list[OutboxMessage]]:
        """Change what is not None, and follow `rules`, for every organization on the plan; say what is to be carried.

        A name that another plan has raises `Conflict`.
        """
        now_ms = self._clock.now_ms()
        try:
            async with self._database.transaction() as session:
                row = await plan_of(session, reference, to_change=True)
                change = write_changes(row, limits, rules, name=name)
                prices_from_ms = await publish_prices(session, row, now_ms)
                if prices_from_ms is not None:
                    change.set("prices_from_ms", prices_from_ms)
                messages = await _revise(session, row, now_ms) if change.is_in_principal else []
                record(session, None, actor, "plan.updated", row.id, at=now_ms // 1000, change=change)
                return PlanView.model_validate(row), messages
        except IntegrityError as error:
            raise _taken(name) from error

    async def delete(self, reference: str, *, actor: ApiKeyId) -> PlanId:
        """Delete a plan; one that organizations are on, archived ones too, raises `Conflict`."""
        now = self._clock.now_ms() // 1000
        async with self._database.transaction() as session:
            row = await plan_of(session, reference, to_change=True)
            on_it = await session.scalar(select(func.count()).where(OrganizationRow.plan_id == row.id))
            if on_it:
                raise Conflict(f"{on_it} organizations are on the plan `{row.name}`. Give them another one first.")
            await session.delete(row)
            record(session, None, actor, "plan.deleted", row.id, at=now, details={"name": row.name})
            return PlanId(row.id)


async def plan_of(session: AsyncSession, reference: str, *, to_change: bool = False) -> PlanRow:
    """Return a plan by its id or name, as it stays until the transaction ends."""
    query = select(PlanRow).where(or_(PlanRow.id == reference, PlanRow.name == reference))
    row = await session.scalar(query.with_for_update(read=not to_change))
    if row is None:
        raise NotFound(f"No such plan: `{reference}`.")
    return row


async def _revise(session: AsyncSession, plan: PlanRow, now_ms: int) -> list[OutboxMessage]:
    """Make every `Principal` outdated that the plan had a say in."""
    bumped = update(OrganizationRow).where(OrganizationRow.plan_id == plan.id)
    rows = await session.execute(
        bumped.values(revision=OrganizationRow.revision + 1)
        .returning(OrganizationRow.id, OrganizationRow.revision)
        .execution_options(synchronize_session=False)
    )
    revisions = {OrganizationId(organization): revision for organization, revision in rows}
    return [await write_change(session, PlanRevised(PlanId(plan.id), revisions), now_ms)] if revisions else []


def _taken(name: str | None) -> Conflict:
    return Conflict(f"Another plan is called `{name}`.", param="name")
