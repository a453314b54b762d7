"""The end of an adapter: no new request, no replica that holds it, no file, in this order and whatever is away."""

from typing import TYPE_CHECKING, Any

import pytest

from support.fakes.replicas import FakeReplicas
from tokenyard.catalog.adapters.retirement import Retirement
from tokenyard.catalog.replicas.discovery import Discovery
from tokenyard.catalog.replicas.placement import Placement
from tokenyard.catalog.replicas.work_lease import WorkLease
from tokenyard.core.adapters import FineTunedName
from tokenyard.core.errors import Unavailable
from tokenyard.core.ids import ApiKeyId, OrganizationId

if TYPE_CHECKING:
    from integration.catalog.conftest import Catalog

ACME = OrganizationId("org_acme")
KEY = ApiKeyId("key_1")
MINUTE, DAY = 60, 86_400


class Ending:
    """A catalog with one replica, and the worker's loops run by hand."""

    def __init__(self, catalog: "Catalog", *, kept_ms: int = 0) -> None:
        self.catalog, self.replicas = catalog, FakeReplicas()
        self.replicas.add("r1", "smol")
        self.discovery = Discovery(
            self.replicas, self.replicas, catalog.registry, self._lease("discovery"), catalog.clock
        )
        self.placement = Placement(
            store=catalog.operator_store,
            replicas=self.replicas,
            registry=catalog.registry,
            lease=self._lease("adapters"),
            clock=catalog.clock,
        )
        self.retirement = self.another(kept_ms=kept_ms)

    def another(self, *, kept_ms: int = 0, name: str = "retirement") -> Retirement:
        return Retirement(
            store=self.catalog.operator_store,
            registry=self.catalog.registry,
            blobs=self.catalog.blobs,
            lease=self._lease(name),
            clock=self.catalog.clock,
            kept_ms=kept_ms,
        )

    def _lease(self, name: str) -> WorkLease:
        return WorkLease(self.catalog.redis, name, 60_000)

    async def step(self, seconds: float = 6) -> None:
        self.catalog.clock.advance(seconds)
        await self.discovery.step()
        await self.placement.step()
        await self.retirement.step()

    async def has_files(self, name: FineTunedName) -> bool:
        return await self.catalog.blobs.exists(f"adapters/org_acme/{name.id}/manifest.json")

    async def state(self, name: FineTunedName) -> str:
        found = await self.catalog.operator_store.adapters(organization=ACME, state=None, after=None, limit=100)
        return next(one.state for one in found if one.id == name.id)

    @property
    def held(self) -> list[str]:
        return self.replicas.held["r1"]


async def test_it_drains_is_freed_and_then_its_files_go(catalog: "Catalog") -> None:
    ending = Ending(catalog)
    name = await catalog.live()
    await ending.step()
    assert ending.held == [str(name)]
    ending.replicas.busy.add(str(name))
    await catalog.adapters.delete(ACME, str(name), actor=KEY)
    await ending.step(16 * MINUTE)
    assert (ending.held, await ending.state(name)) == ([str(name)], "draining")
    assert await ending.has_files(name), "a replica still holds it"
    ending.replicas.busy.clear()
    await ending.step()
    assert (ending.held, await ending.state(name)) == ([], "draining")
    await ending.step()
    assert (await ending.state(name), await ending.has_files(name)) == ("retired", False)
    await ending.step(DAY)
    assert await catalog.noted() == [
        ("adapter.checking", KEY, name.id),
        ("adapter.live", "worker", name.id),
        ("adapter.draining", KEY, name.id),
        ("adapter.retired", "worker", name.id),
        ("adapter.files_deleted", "worker", name.id),
    ]
    (shown,) = await catalog.operator_store.adapters(organization=ACME, state=None, after=None, limit=2)
    assert shown.live_at is not None
    assert shown.draining_at is not None
    assert shown.live_at < shown.draining_at < (shown.retired_at or 0) <= (shown.files_deleted_at or 0)


async def test_the_audit_log_tells_what_was_and_what_is(catalog: "Catalog") -> None:
    name = await catalog.live()
    await catalog.adapters.fail(ACME, name.id, "it was wrong")
    newest, *_ = await catalog.tenancy.audit_log(ACME, before=None, limit=1)
    assert newest.details == {"model": str(name), "state": "draining", "reason": "it was wrong"}
    assert newest.before == {"state": "live"}


async def test_it_drains_for_longer_than_any_gateway_may_be_stale(catalog: "Catalog") -> None:
    ending = Ending(catalog)
    name = await catalog.live()
    await catalog.adapters.delete(ACME, str(name), actor=KEY)
    await ending.step(14 * MINUTE)
    assert await ending.state(name) == "draining"
    ending.replicas.add("r2", "smol")
    ending.replicas.silent.add("r2")
    await ending.step(2 * MINUTE)
    assert await ending.state(name) == "draining", "a silent replica may hold it"
    ending.replicas.serve_is_up = False
    ending.replicas.silent.clear()
    await ending.step()
    assert await ending.state(name) == "draining", "Serve may run replicas we do not know of"
    ending.replicas.serve_is_up = True
    await ending.step()
    assert (await ending.state(name), await ending.has_files(name)) == ("retired", False)


async def test_an_old_look_at_the_replicas_proves_nothing(catalog: "Catalog") -> None:
    ending = Ending(catalog)
    name = await catalog.live()
    await ending.step()
    await catalog.adapters.delete(ACME, str(name), actor=KEY)
    catalog.clock.advance(16 * MINUTE)
    await ending.retirement.step()
    assert await ending.state(name) == "draining"


async def test_files_are_kept_as_long_as_the_setting_says(catalog: "Catalog") -> None:
    ending = Ending(catalog, kept_ms=7 * DAY * 1000)
    name = await catalog.live()
    await catalog.adapters.delete(ACME, str(name), actor=KEY)
    await ending.step(16 * MINUTE)
    await ending.step(7 * DAY - 12)
    assert (await ending.state(name), await ending.has_files(name)) == ("retired", True)
    await ending.step(12)
    assert not await ending.has_files(name)


async def test_one_whose_files_cannot_be_deleted_holds_up_no_other(
    catalog: "Catalog", monkeypatch: pytest.MonkeyPatch
) -> None:
    ending = Ending(catalog)
    stuck, other = await catalog.live(), await catalog.live()
    for name in (stuck, other):
        await catalog.adapters.delete(ACME, str(name), actor=KEY)
        catalog.clock.advance(1)
    delete = catalog.blobs.delete

    async def fails_for_one(path: str) -> None:
        if stuck.id in path:
            raise Unavailable("The file store does not answer.")
        await delete(path)

    with monkeypatch.context() as patched:
        patched.setattr(catalog.blobs, "delete", fails_for_one)
        await ending.step(16 * MINUTE)
    assert [await ending.has_files(name) for name in (stuck, other)] == [True, False]
    await ending.step()
    assert not await ending.has_files(stuck)


async def test_a_worker_that_died_between_files_and_note_leaves_the_rest_to_the_next(
    catalog: "Catalog", monkeypatch: pytest.MonkeyPatch
) -> None:
    ending = Ending(catalog)
    name = await catalog.live()
    await catalog.adapters.delete(ACME, str(name), actor=KEY)

    async def dies(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(catalog.operator_store, "files_deleted", dies)
        with pytest.raises(KeyboardInterrupt):
            await ending.step(16 * MINUTE)
    assert not await ending.has_files(name)
    await ending.another(name="the next worker").step()
    await ending.another(name="and one more").step()
    assert [kind for kind, _, _ in await catalog.noted()][-2:] == ["adapter.retired", "adapter.files_deleted"]
