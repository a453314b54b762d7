"""Each operation on money dies at its first step, at its second, and so on: whatever it had done, no hole is left.

Right before a step is right after the one before it; in the last round no step is left, so the process dies after all.
"""

import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from support.money.actions import MoneyActions
from support.money.books import MoneyBooks
from support.money.faults import Fault, Plan
from support.money.model import Job, LetIn, Tenant
from support.money.processes import GatewayProcess, MoneyProcess, WorkerProcess
from support.money.stand import MoneyStand, neighbours
from support.servers.free_ports import free_port
from support.servers.valkey import Valkey
from tokenyard.core.ids import ApiKeyId
from tokenyard.core.usage import TokenUsage
from tokenyard.metering.events import Outcome
from tokenyard.storage.database import Database
from tokenyard_billing.charging import consumer

MOST = TokenUsage(20, 10)
USED = TokenUsage(20, 6, 5)
CREDIT = 100_000
LIMIT = 80_000
MAX_STEPS = 150
AFTER_COMMIT = Plan(2, Fault.DIES_BEFORE, visible=True)
EVERY = "MONEY_EVERY_STEP" in os.environ
"""Also at steps that leave nothing behind for others to see: it takes minutes."""


class Scene:
    """What comes before the operation, and the operation, which a process with a plan does."""

    def __init__(self, stand: MoneyStand, number: int) -> None:
        self.stand = stand
        self.actions = MoneyActions(stand)
        self.books = MoneyBooks(self.actions)
        self._organizations = neighbours(number)

    @property
    def acme(self) -> Tenant:
        return self.stand.told.tenants[0]

    @property
    def other(self) -> Tenant:
        return self.stand.told.tenants[1]

    @property
    def key(self) -> ApiKeyId:
        return self.acme.keys[0]

    @property
    def gateway(self) -> GatewayProcess:
        return self.stand.gateways[0]

    @property
    def worker(self) -> WorkerProcess:
        """The worker of the buckets of both tenants."""
        return next(one for one in self.stand.workers if one.billing.leases.held >= self.stand.buckets)

    async def open(self) -> None:
        await self.stand.divide_buckets()  # the clock is moved by hand, and may have ended a worker's leases
        for worker in self.stand.workers:
            await worker.consume()
        await self.stand.welcome(*self._organizations, monthly_spend=LIMIT)
        for tenant in self.stand.told.tenants:
            await self.actions.grant(tenant, CREDIT, self.gateway)

    async def admitted(self, tenant: Tenant | None = None, *, attempts: int = 1) -> LetIn:
        owner = tenant or self.acme
        await self.actions.admit(owner.keys[0], self.gateway, most=MOST, used=USED, attempts=attempts)
        return list(self.stand.told.requests.values())[-1]

    async def left_without_gateway(self) -> LetIn:
        """A request whose gateway died."""
        one = await self.admitted()
        await self.stand.kill(self.gateway)
        return one

    async def reserved(self) -> Job:
        await self.actions.reserve(self.acme, self.key, self.gateway, 10)
        return list(self.stand.told.jobs.values())[-1]


async def admit(scene: Scene, plan: Plan) -> MoneyProcess:
    """No budget is loaded yet."""
    dying = scene.gateway
    await scene.actions.admit(scene.key, dying, most=MOST, used=USED, plan=plan)
    return dying


async def _settle(scene: Scene, outcome: Outcome, plan: Plan) -> MoneyProcess:
    one = await scene.admitted()
    await scene.actions.report(one, 1)
    dying = scene.gateway
    await scene.actions.settle(one, outcome, USED, plan=plan)
    return dying


async def settle(scene: Scene, plan: Plan) -> MoneyProcess:
    return await _settle(scene, Outcome.COMPLETED, plan)


async def leave(scene: Scene, plan: Plan) -> MoneyProcess:
    return await _settle(scene, Outcome.CLIENT_LEFT, plan)


async def settle_from_the_spool(scene: Scene, plan: Plan) -> MoneyProcess:
    for outcome in (Outcome.COMPLETED, Outcome.CLIENT_LEFT):
        one = await scene.admitted()
        await scene.actions.settle(one, outcome, USED, plan=Plan(1, Fault.ANSWER_LOST))
    dying = scene.gateway
    await scene.actions.gateway_round(dying, plan=plan)
    return dying


async def report(scene: Scene, plan: Plan) -> MoneyProcess:
    one = await scene.left_without_gateway()
    dying = scene.stand.replica
    await scene.actions.report(one, 1, plan=plan)
    return dying


async def sweep(scene: Scene, plan: Plan) -> MoneyProcess:
    await scene.admitted(scene.other)
    await scene.left_without_gateway()
    dying = scene.worker
    await scene.actions.sweep(dying, plan=plan)
    return dying


async def charge(scene: Scene, plan: Plan) -> MoneyProcess:
    """Completed, wasted, failed, left, and one whose gateway is gone: of both tenants, in one batch."""
    retried = await scene.admitted(attempts=2)
    await scene.actions.report(retried, 1)
    await scene.actions.settle(retried, Outcome.COMPLETED, USED)
    await scene.actions.settle(await scene.admitted(scene.other), Outcome.COMPLETED, USED)
    await scene.actions.settle(await scene.admitted(), Outcome.FAILED, USED)
    left = await scene.admitted()
    await scene.actions.settle(left, Outcome.CLIENT_LEFT, USED)
    await scene.actions.report(left, 1)
    await scene.left_without_gateway()
    await scene.actions.sweep(scene.worker)
    dying = scene.worker
    await scene.actions.consume(dying, plan=plan)
    return dying


async def decide_overdue(scene: Scene, plan: Plan) -> MoneyProcess:
    await scene.actions.settle(await scene.admitted(), Outcome.CLIENT_LEFT, USED)
    await scene.actions.report(await scene.admitted(), 1)
    await scene.left_without_gateway()
    await scene.actions.sweep(scene.worker)
    await scene.actions.consume(scene.worker)
    dying = scene.worker
    await scene.actions.consume(dying, overdue=True, plan=plan)
    return dying


async def find_orphan(scene: Scene, plan: Plan) -> MoneyProcess:
    """Only the replica spoke, and Redis lost the hold together with the gateway."""
    scene.stand.keep()
    one = await scene.admitted()
    await scene.actions.report(one, 1)
    await scene.gateway.kill()
    one.forgotten = True
    await scene.actions.redis_dies()
    await scene.actions.consume(scene.worker)
    dying = scene.worker
    await scene.actions.consume(dying, overdue=True, plan=plan)
    return dying


async def grant(scene: Scene, plan: Plan) -> MoneyProcess:
    await scene.admitted()
    dying = scene.gateway
    await scene.actions.grant(scene.acme, 5_000, dying, plan=plan)
    return dying


async def grant_again(scene: Scene, plan: Plan) -> MoneyProcess:
    """The same idempotency key, after a process that died between the commit and the carrying."""
    await scene.admitted()
    await scene.actions.grant(scene.acme, 5_000, scene.gateway, plan=AFTER_COMMIT)
    dying = scene.gateway
    await scene.actions.grant(scene.acme, 0, dying, again=list(scene.acme.asked)[-1], plan=plan)
    return dying


async def reserve(scene: Scene, plan: Plan) -> MoneyProcess:
    await scene.admitted()
    dying = scene.gateway
    await scene.actions.reserve(scene.acme, scene.key, dying, 10, plan=plan)
    return dying


async def reserve_too_much(scene: Scene, plan: Plan) -> MoneyProcess:
    await scene.admitted()
    dying = scene.gateway
    await scene.actions.reserve(scene.acme, scene.key, dying, 100, plan=plan)
    return dying


async def abandon(scene: Scene, plan: Plan) -> MoneyProcess:
    """Its creator died while it was held and not yet in the ledger."""
    await scene.admitted()
    while_held = Plan(3, Fault.DIES_BEFORE, visible=True)
    await scene.actions.reserve(scene.acme, scene.key, scene.gateway, 10, plan=while_held)
    dying = scene.worker
    await scene.actions.tidy(dying, plan=plan)
    return dying


async def close_reservation(scene: Scene, plan: Plan) -> MoneyProcess:
    await scene.actions.finish(await scene.reserved(), 7)
    await scene.actions.carry(scene.worker)
    dying = scene.worker
    await scene.actions.consume(dying, plan=plan)
    return dying


async def charge_hours(scene: Scene, plan: Plan) -> MoneyProcess:
    """Of two fine-tunes, told twice."""
    for adapter in (0, 1, 0, 1):
        await scene.actions.host(scene.acme, scene.key, adapter, pinned=adapter == 1)
    await scene.actions.carry(scene.worker)
    dying = scene.worker
    await scene.actions.consume(dying, plan=plan)
    return dying


async def carry(scene: Scene, plan: Plan) -> MoneyProcess:
    """What others left behind: a grant, a reservation, a charge, the end of a job."""
    job = await scene.reserved()
    for _ in range(2):
        await scene.actions.grant(scene.acme, 5_000, scene.gateway, plan=AFTER_COMMIT)
    await scene.actions.settle(await scene.admitted(), Outcome.COMPLETED, USED)
    await scene.actions.finish(job, 10)
    dying = scene.worker
    await scene.actions.carry(dying, plan=plan)
    return dying


async def lower_limit(scene: Scene, plan: Plan) -> MoneyProcess:
    """To less than what is let in; a gateway that does not know it yet lets in what fits the old one, or nothing."""
    other = scene.stand.gateways[1]
    await scene.actions.admit(scene.key, other, most=MOST, used=USED)
    await scene.books.check_now()
    dying = scene.gateway
    await scene.actions.limit(scene.acme, scene.acme.organization, 100, dying, plan=plan)
    await scene.actions.admit(scene.key, other, most=MOST, used=USED, fresh=False)
    return dying


async def raise_limit(scene: Scene, plan: Plan) -> MoneyProcess:
    await scene.admitted()
    dying = scene.gateway
    await scene.actions.limit(scene.acme, scene.acme.organization, LIMIT * 2, dying, plan=plan)
    return dying


Operation = Callable[[Scene, Plan], Awaitable[MoneyProcess]]
OPERATIONS: tuple[Operation, ...] = (
    *(admit, settle, leave, settle_from_the_spool, report, sweep, charge, decide_overdue, find_orphan),
    *(
        grant,
        grant_again,
        reserve,
        reserve_too_much,
        abandon,
        close_reservation,
        charge_hours,
        carry,
        lower_limit,
        raise_limit,
    ),
)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a dead worker left is taken at the next step, and not two seconds later."""
    monkeypatch.setattr(consumer, "RETRY_MS", 0)


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    folder = tmp_path / "valkey"
    folder.mkdir()
    server = Valkey(folder, free_port())
    server.start()
    yield server
    server.stop()


# The same steps on both; on PostgreSQL each takes longer.
@pytest.mark.parametrize("database", ["sqlite", pytest.param("postgres", marks=pytest.mark.long)], indirect=True)
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
async def test_death_at_every_step(operation: Operation, database: Database, valkey: Valkey, tmp_path: Path) -> None:
    url = database.engine.url.render_as_string(hide_password=False)
    async with MoneyStand(valkey, tmp_path, url) as stand:
        for step in range(1, MAX_STEPS):
            scene = Scene(stand, step)
            await scene.open()
            dying = await operation(scene, Plan(step, Fault.DIES_BEFORE, visible=not EVERY))
            died = dying.dead
            await scene.books.check_now()
            await scene.actions.recover()
            await scene.books.check_at_rest()
            if not died:
                break
        assert not died, "the operation does not end"
        assert step > 1, "the operation takes no step"
        await scene.books.check_rebuilt()
