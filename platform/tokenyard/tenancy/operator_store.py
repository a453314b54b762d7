"""Tenancy across organizations: for authentication, operator routes and worker loops only."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import msgspec
from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.budgets import ALERT_PERCENTS, AlertRules
from tokenyard.core.clock import Clock
from tokenyard.core.errors import Conflict, NotFound
from tokenyard.core.ids import ApiKeyId, OrganizationId, new_organization_id, new_project_id
from tokenyard.core.money import FeeStep, NanoDollars, PriceStep
from tokenyard.core.principal import Limits, Role
from tokenyard.core.training import TrainingLimits, TrainingTerms
from tokenyard.storage.database import Database, advisory_lock
from tokenyard.storage.paging import part_of_list
from tokenyard.storage.transactional_outbox import OutboxMessage
from tokenyard.tenancy.audit import EVERY_CHANGE, AuditFilter, read_audit_log
from tokenyard.tenancy.changes import OperatorKeyEnded, write_change
from tokenyard.tenancy.keys import Credential
from tokenyard.tenancy.permissions.store import permitted_models
from tokenyard.tenancy.plans.combination import NO_LIMITS, credential_of, effective_limits, effective_weight
from tokenyard.tenancy.plans.fees import fee_steps, organizations_with_fees
from tokenyard.tenancy.plans.operator_store import plan_of
from tokenyard.tenancy.plans.prices import in_force, price_steps, publish_first_plan, publish_move
from tokenyard.tenancy.plans.rules import Rules
from tokenyard.tenancy.store import NO_RULES, AuditedChange, LimitsChange, record, revise_for, write_changes
from tokenyard.tenancy.tables import ApiKeyRow, OrganizationRow, PlanRow, ProjectRow
from tokenyard.tenancy.views import AuditEntry, OperatorKeyView, OrganizationView

DEFAULT_PROJECT = "Default project"
SCOPES_AT_ONCE = 500


class PlanChoice(NamedTuple):
    """Which plan an organization gets, by its id or name; None is none."""

    reference: str | None


class TenancyOperatorStore:
    """Organizations, operators' keys, and what loops look for. An unknown reference (id or slug) raises `NotFound`."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def create_organization(
        self,
        *,
        name: str,
        slug: str,
        limits: Limits,
        actor: ApiKeyId,
        plan: str | None = None,
        rules: Rules = NO_RULES,
    ) -> OrganizationView:
        """Create an organization with its default project; a slug that was given before raises `Conflict`."""
        now = self._clock.now_ms() // 1000
        organization, project = new_organization_id(), new_project_id()
        row = OrganizationRow(
            id=organization,
            slug=slug,
            name=name,
            default_project_id=project,
            limits=limits,
            created_at=now,
        )
        details: dict[str, object] = {"name": name, "slug": slug}
        change = AuditedChange(row)
        change.follow(rules)
        try:
            async with self._database.transaction() as session:
                if plan is not None:
                    change.set("plan_id", (await plan_of(session, plan)).id)
                    publish_first_plan(session, row, self._clock.now_ms())
                change.before.clear()
                session.add(row)
                await session.flush()
                session.add(_default_project(row))
                action = "organization.created"
                record(session, organization, actor, action, organization, at=now, details=details, change=change)
        except IntegrityError as error:
            raise Conflict(f"The slug `{slug}` is taken; slugs are never given twice.", param="slug") from error
        return OrganizationView.model_validate(row)

    async def organizations(self, *, after: str | None, limit: int) -> list[OrganizationView]:
        """Return organizations in the order of their creation, beginning behind the reference `after`."""
        columns = OrganizationRow.created_at, OrganizationRow.id
        async with self._database.reading() as session:
            last = None if after is None else await _organization(session, after)
            part = part_of_list(select(OrganizationRow), *columns, after=last, limit=limit, newest_first=False)
            return [OrganizationView.model_validate(row) for row in await session.scalars(part)]

    async def organization_ids(self) -> list[OrganizationId]:
        """Return the ids of all of them."""
        async with self._database.reading() as session:
            return [OrganizationId(name) for name in await session.scalars(select(OrganizationRow.id))]

    async def organization(self, reference: str) -> OrganizationView:
        async with self._database.reading() as session:
            return OrganizationView.model_validate(await _organization(session, reference))

    async def slug(self, organization: OrganizationId) -> str:
        """Return the slug that stands in the names of the organization's models."""
        return (await self.organization(organization)).slug

    async def change_organization(
        self,
        reference: str,
        *,
        name: str | None,
        limits: LimitsChange | None,
        archived: bool | None,
        actor: ApiKeyId,
        rules: Rules = NO_RULES,
        plan: PlanChoice | None = None,
    ) -> tuple[OrganizationView, list[OutboxMessage]]:
        """Change what is not None, and follow `rules`; return the organization, and what is to be carried."""
        now_ms = self._clock.now_ms()
        async with self._database.transaction() as session:
            # The plan before the organization: in this order plans change, too.
            chosen = None if plan is None or plan.reference is None else await plan_of(session, plan.reference)
            row = await _organization(session, reference, to_change=True)
            change = write_changes(row, limits, rules, name=name)
            change.archive(archived, at=now_ms // 1000)
            if plan is not None:
                change.set("plan_id", None if chosen is None else chosen.id)
            await _move(session, row, change, now_ms)
            messages = await revise_for(session, OrganizationId(row.id), change, now_ms)
            action = "organization.archived" if archived else "organization.updated"
            record(session, OrganizationId(row.id), actor, action, row.id, at=now_ms // 1000, change=change)
            return OrganizationView.model_validate(row), messages

    async def add_operator_key(self, row: ApiKeyRow, *, actor: ApiKeyId) -> OperatorKeyView:
        async with self._database.transaction() as session:
            session.add(row)
            record(session, None, actor, "operator_key.created", row.id, at=row.created_at, details={"name": row.name})
        return OperatorKeyView.model_validate(row)

    async def operator_keys(self) -> list[OperatorKeyView]:
        """Return the operators' keys that are neither revoked nor expired, oldest first."""
        query = select(ApiKeyRow).where(self._live_operator_key()).order_by(ApiKeyRow.created_at, ApiKeyRow.id)
        async with self._database.reading() as session:
            return [OperatorKeyView.model_validate(row) for row in await session.scalars(query)]

    async def revoke_operator_key(self, key: str, *, actor: ApiKeyId) -> list[OutboxMessage]:
        """End an operator's key for ever, and return what is to be carried; doing it again changes nothing.

        Raises:
            Conflict: it is the last one: nobody could make another.
        """
        now_ms = self._clock.now_ms()
        async with self._database.transaction() as session:
            # Two keys that end at the same moment must not each count on the other.
            await advisory_lock(session, "tenancy operator keys")
            row = await session.scalar(select(ApiKeyRow).where(ApiKeyRow.role == Role.OPERATOR, ApiKeyRow.id == key))
            if row is None:
                raise NotFound(f"No such operator key: `{key}`.")
            if row.revoked_at is not None:
                return []
            others = and_(self._live_operator_key(), ApiKeyRow.id != row.id)
            if not await session.scalar(select(func.count()).where(others)):
                raise Conflict("This is the last operator key. Create another one first.")
            row.revoked_at = now_ms // 1000
            record(session, None, actor, "operator_key.deleted", row.id, at=now_ms // 1000)
            return [await write_change(session, OperatorKeyEnded(ApiKeyId(row.id)), now_ms)]

    async def audit_log(
        self, wanted: AuditFilter = EVERY_CHANGE, *, organization: str | None, before: int | None, limit: int
    ) -> list[AuditEntry]:
        """Return changes, as `read_audit_log` does; `organization` is a reference."""
        async with self._database.reading() as session:
            owner = None if organization is None else OrganizationId((await _organization(session, organization)).id)
            return await read_audit_log(session, owner, wanted, before=before, limit=limit)

    def _live_operator_key(self) -> ColumnElement[bool]:
        unexpired = or_(ApiKeyRow.expires_at.is_(None), ApiKeyRow.expires_at > self._clock.now_ms() // 1000)
        return and_(ApiKeyRow.role == Role.OPERATOR, ApiKeyRow.revoked_at.is_(None), unexpired)

    async def credential(self, hashes: Sequence[str]) -> Credential | None:
        """Return who holds the key with one of these hashes; None where it is unknown or has ended."""
        query = (
            select(ApiKeyRow, ProjectRow, OrganizationRow, PlanRow)
            .outerjoin(ProjectRow, ProjectRow.id == ApiKeyRow.project_id)
            .outerjoin(OrganizationRow, OrganizationRow.id == ApiKeyRow.organization_id)
            .outerjoin(PlanRow, PlanRow.id == OrganizationRow.plan_id)
            .where(ApiKeyRow.hash.in_(hashes))
        )
        async with self._database.reading() as session:
            found = (await session.execute(query)).first()
            if found is None:
                return None
            key, project, organization, plan = found
            # After the revision: a step that is newer than that does no harm, and one that is older would.
            prices = await self._prices(session, organization)
            listed = project is not None and project.models is not None
            permitted = await permitted_models(session, key.project_id) if listed else ()
            return credential_of(key, project, organization, plan, prices, permitted=permitted)

    async def key_hash(self, key: ApiKeyId) -> str | None:
        """Return the hash under which a key is stored; None where there is none."""
        async with self._database.reading() as session:
            return await session.scalar(select(ApiKeyRow.hash).where(ApiKeyRow.id == key))

    async def _prices(self, session: AsyncSession, organization: OrganizationRow | None) -> Sequence[PriceStep]:
        if organization is None or not (organization.plan_id or organization.prices_from_ms):
            return ()  # it was never on a plan
        owner = OrganizationId(organization.id)
        return in_force((await price_steps(session, [owner]))[owner], self._clock.now_ms())

    async def price_steps(
        self, session: AsyncSession, organizations: Collection[OrganizationId]
    ) -> Mapping[OrganizationId, Sequence[PriceStep]]:
        """Return for each by what its prices were, are and will be multiplied, in the order of dates."""
        return await price_steps(session, organizations)

    async def fee_steps(self, session: AsyncSession, organization: OrganizationId) -> Sequence[FeeStep]:
        """Return what its plans asked for a month, ask, and will ask, in the order of dates."""
        return await fee_steps(session, organization)

    async def with_fees(self, session: AsyncSession, *, after: str, limit: int) -> Sequence[OrganizationId]:
        """Return at most `limit` organizations behind `after` of which a plan ever asked a fee or a minimum."""
        return await organizations_with_fees(session, after=after, limit=limit)

    async def pinned_adapters(self) -> Mapping[OrganizationId, int]:
        """Return how many fine-tuned models of each organization stay in memory, where its plan keeps any."""
        query = (
            select(OrganizationRow.id, PlanRow.pinned_adapters)
            .join(PlanRow, PlanRow.id == OrganizationRow.plan_id)
            .where(PlanRow.pinned_adapters > 0, OrganizationRow.archived_at.is_(None))
        )
        async with self._database.reading() as session:
            return {OrganizationId(organization): count for organization, count in await session.execute(query)}

    async def training_terms(self, organizations: Collection[OrganizationId]) -> Mapping[OrganizationId, TrainingTerms]:
        """Return what each of them has of training."""
        query = select(OrganizationRow, PlanRow).outerjoin(PlanRow, PlanRow.id == OrganizationRow.plan_id)
        async with self._database.reading() as session:
            rows = await session.execute(query.where(OrganizationRow.id.in_(organizations)))
            found = {OrganizationId(row.id): _training_terms(row, plan) for row, plan in rows}
        return {organization: found.get(organization, TrainingTerms()) for organization in organizations}

    async def alert_rules(
        self, scopes: Mapping[OrganizationId, Collection[str]]
    ) -> Mapping[OrganizationId, AlertRules]:
        """Return when organizations are told of their use, with their own limits and those of `scopes` (ids)."""
        wanted = sorted({scope for of_one in scopes.values() for scope in of_one})
        limits: dict[OrganizationId, dict[str, NanoDollars]] = {organization: {} for organization in scopes}
        percents: dict[OrganizationId, tuple[int, ...]] = {}
        stated = select(OrganizationRow.id, OrganizationRow.alert_percents, OrganizationRow.limits, PlanRow.limits)
        of_organizations = stated.outerjoin(PlanRow, PlanRow.id == OrganizationRow.plan_id)
        async with self._database.reading() as session:
            for start in range(0, len(wanted), SCOPES_AT_ONCE):
                part = wanted[start : start + SCOPES_AT_ONCE]
                for table in (ApiKeyRow, ProjectRow):
                    query = select(table.organization_id, table.id, table.limits).where(table.id.in_(part))
                    for organization, scope, found in await session.execute(query):
                        owner = OrganizationId(organization or "")
                        if scope in scopes.get(owner, ()) and found.monthly_spend is not None:
                            limits[owner][scope] = found.monthly_spend
            rows = await session.execute(of_organizations.where(OrganizationRow.id.in_(list(scopes))))
            for organization, own_percents, own, plan in rows:
                owner = OrganizationId(organization)
                spend = effective_limits(own, plan or NO_LIMITS).monthly_spend
                if spend is not None:
                    limits[owner][owner] = spend
                percents[owner] = ALERT_PERCENTS if own_percents is None else tuple(own_percents)
        return {owner: AlertRules(of_one, limits[owner]) for owner, of_one in percents.items()}

    async def unannounced(self, limit: int) -> list[OrganizationId]:
        """Return organizations that the other slices may not have heard of, oldest first."""
        query = select(OrganizationRow.id).where(OrganizationRow.announced_at.is_(None))
        async with self._database.reading() as session:
            rows = await session.scalars(query.order_by(OrganizationRow.created_at).limit(limit))
            return [OrganizationId(row) for row in rows]

    async def announced(self, organization: OrganizationId) -> None:
        """Note that the other slices have heard of it."""
        async with self._database.transaction() as session:
            row = await _organization(session, organization)
            row.announced_at = self._clock.now_ms() // 1000


async def _move(session: AsyncSession, row: OrganizationRow, change: AuditedChange, now_ms: int) -> None:
    moves = change.before.get("plan_id") != change.after.get("plan_id")
    if moves or "archived" in change.after:
        from_ms = await publish_move(session, row, now_ms)
        if moves:
            change.set("prices_from_ms", from_ms)


def _default_project(owner: OrganizationRow) -> ProjectRow:
    return ProjectRow(
        id=owner.default_project_id,
        organization_id=owner.id,
        name=DEFAULT_PROJECT,
        limits=Limits(),
        created_at=owner.created_at,
    )


async def _organization(session: AsyncSession, reference: str, *, to_change: bool = False) -> OrganizationRow:
    query = select(OrganizationRow).where(or_(OrganizationRow.id == reference, OrganizationRow.slug == reference))
    row = await session.scalar(query.with_for_update() if to_change else query)
    if row is None:
        raise NotFound(f"No such organization: `{reference}`.")
    return row


def _training_terms(organization: OrganizationRow, plan: PlanRow | None) -> TrainingTerms:
    return TrainingTerms(
        weight=effective_weight(organization.weight, plan),
        limits=TrainingLimits() if plan is None else msgspec.convert(plan.training, TrainingLimits),
    )
