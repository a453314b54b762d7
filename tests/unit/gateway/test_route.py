"""Which replica gets a request."""

import msgspec

from support.fakes.admission_requests import admission_request, principal
from support.fakes.gateway_ports import BASE, KnownReplicas
from tokenyard.core.adapters import AdapterRef
from tokenyard.core.ids import AdapterId
from tokenyard.core.replica import Replica
from tokenyard.core.usage import MeterClaims
from tokenyard.gateway.path.route import ReplicaRouter

ADAPTER = AdapterRef(AdapterId("1"), "ft:x", "path", "digest")
CLAIMS = msgspec.structs.replace(admission_request(principal()).claims, base_model=BASE.id)
TUNED = msgspec.structs.replace(CLAIMS, adapter=ADAPTER)


def _replica(name: str, *, adapters: tuple[str, ...] = (), running: int = 0, waiting: int = 0) -> Replica:
    return Replica(name, BASE.id, f"http://{name}", adapters, running, waiting)


def _picked(claims: MeterClaims, *replicas: Replica, tried: tuple[str, ...] = ()) -> str | None:
    picked = ReplicaRouter(KnownReplicas(replicas)).pick(claims, tried)
    return picked.name if picked is not None else None


def test_free_slots_come_first() -> None:
    queueing = _replica("a", adapters=(ADAPTER.name,), waiting=1)
    assert _picked(TUNED, queueing, _replica("b", running=40)) == "b"


def test_then_the_adapter() -> None:
    assert _picked(TUNED, _replica("a"), _replica("b", adapters=(ADAPTER.name,), running=9)) == "b"


def test_then_the_least_loaded() -> None:
    assert _picked(CLAIMS, _replica("a", running=3), _replica("b", running=2)) == "b"


def test_what_this_gateway_has_under_way_counts() -> None:
    first, second = _replica("a"), _replica("b")
    router = ReplicaRouter(KnownReplicas([first, second]))
    with router.using(first):
        assert router.pick(CLAIMS, ()) == second
        with router.using(second), router.using(second):
            assert router.pick(CLAIMS, ()) == first


def test_not_one_that_was_tried() -> None:
    assert _picked(CLAIMS, _replica("a"), _replica("b", running=9), tried=("a",)) == "b"
    assert _picked(CLAIMS, _replica("a"), tried=("a",)) is None


def test_not_another_models() -> None:
    assert _picked(CLAIMS, Replica("a", "other-model", "http://a")) is None
