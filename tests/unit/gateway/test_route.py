"""Which replica gets a request."""

from collections import Counter
from contextlib import ExitStack

from support.fakes.gateway_ports import BASE, KnownReplicas
from support.routing.routed_requests import SLOTS, replica, routed, way
from tokenyard.core.replica import Replica, ReplicaLoad
from tokenyard.gateway.path.route import ReplicaRouter, RoutedRequest
from tokenyard.gateway.routing.credits import ANSWER_WEIGHT, QUANTUM_TOKENS

ADAPTER = "ft:test-model:acme::1"
STORY = "Once upon a time there was a river. " * 100


def _router(*replicas: Replica) -> ReplicaRouter:
    return ReplicaRouter(KnownReplicas(replicas))


def _picked(request: RoutedRequest, *replicas: Replica, tried: tuple[str, ...] = ()) -> set[str | None]:
    """Return everything that several gateways, which remember nothing, choose.

    One of five is missed by this many draws once in 10^24 runs.
    """
    ways = [_router(*replicas).pick(request, tried) for _ in range(256)]
    return {None if one is None else one.replica.name for one in ways}


def test_a_replica_whose_slots_are_taken_comes_after_one_with_free_slots() -> None:
    full = replica("a", adapters=(ADAPTER,), running=SLOTS)
    assert _picked(routed(adapter=ADAPTER), full, replica("b", running=SLOTS - 1)) == {"b"}


def test_then_the_adapter() -> None:
    assert _picked(routed(adapter=ADAPTER), replica("a"), replica("b", adapters=(ADAPTER,), running=3)) == {"b"}


def test_an_adapter_draws_nothing_to_a_replica_that_is_busier_than_the_others() -> None:
    assert _picked(routed(adapter=ADAPTER), replica("a"), replica("b", adapters=(ADAPTER,), running=24)) == {"a"}


def test_gateways_that_know_nothing_begin_an_adapter_at_the_same_replica() -> None:
    names = "abcdefgh"
    first = {at: _picked(routed(adapter=f"ft:{at}"), *map(replica, names)) for at in range(64)}
    assert all(len(picked) == 1 for picked in first.values())
    assert len(set.union(*first.values())) > len(names) / 2, "the adapters are spread"


def test_and_a_prompt_as_well() -> None:
    assert len(_picked(routed(STORY), *map(replica, "abcdefgh"))) == 1


def test_then_the_less_busy() -> None:
    assert _picked(routed(), replica("a", running=3), replica("b", running=2)) == {"b"}


def test_tokens_that_wait_count() -> None:
    assert _picked(routed(), replica("a", waiting_tokens=2000), replica("b", running=2)) == {"b"}


def test_of_many_the_busiest_is_never_taken_and_the_others_are() -> None:
    rest = [replica(name, running=1) for name in "bcdef"]
    assert _picked(routed(), replica("a", running=30), *rest) == set("bcdef")


def test_a_prompt_goes_where_it_began() -> None:
    router = _router(*map(replica, "abcdefgh"))
    first = way(router, routed(STORY)).replica
    for number in range(50):
        assert way(router, routed(f"{STORY} and then? {number}")).replica == first


def test_the_longer_of_two_beginnings_wins() -> None:
    router = _router(*map(replica, "abc"))
    chat = STORY + "What happens in it? " * 100
    place = way(router, routed(STORY)).replica
    other = way(router, routed(chat), place.name).replica
    assert other != place
    assert way(router, routed(chat + "And then?")).replica == other


def test_no_prompt_ties_its_organization_to_one_replica_for_good() -> None:
    """What it had there, prompts and answers, comes out of a credit; when that is spent, the others' turn comes."""
    router = _router(*map(replica, "abc"))
    served = Counter[str]()
    for _ in range(400):
        with way(router, routed(STORY, prompt_tokens=1000)) as one:
            one.made(1000)
        served[one.replica.name] += 1
    assert max(served.values()) - min(served.values()) <= QUANTUM_TOKENS / (ANSWER_WEIGHT * 1000) + 1


def test_another_organization_finds_nothing_of_it() -> None:
    replicas = list(map(replica, "abcdefgh"))
    router = _router(*replicas)
    home = next(iter(_picked(routed(STORY, organization="theirs"), *replicas)))
    used = way(router, routed(STORY), *([home] if home else [])).replica.name
    assert used != home, "what is sent by the one is elsewhere than where the other's begins"
    assert way(router, routed(STORY, organization="theirs")).replica.name == home


def test_what_this_gateway_has_under_way_counts() -> None:
    first, second = replica("a"), replica("b")
    router = _router(first, second)
    with ExitStack() as under_way:
        for _ in range(10):
            under_way.enter_context(way(router, routed(), "b"))
        assert way(router, routed()).replica == second
        with way(router, routed(sequences=20), "a"):
            assert way(router, routed()).replica == first


def test_a_prompt_that_waits_counts_until_its_answer_begins() -> None:
    router = _router(replica("a"), replica("b", running=1))
    long = way(router, routed(prompt_tokens=8000), "b")
    with long:
        assert way(router, routed()).replica.name == "b"
        long.began(None)
        with way(router, routed(), "a"):
            assert way(router, routed()).replica.name == "a"


def test_a_prompt_that_is_computed_counts_no_more_also_where_its_answer_comes_whole() -> None:
    router = _router(replica("a"), replica("b", running=2))
    with way(router, routed(prompt_tokens=8000), "b"):
        assert way(router, routed()).replica.name == "b"
        with way(router, routed(), "b") as another:
            another.began(ReplicaLoad(2, SLOTS, 0))
        assert way(router, routed()).replica.name == "a"


def test_what_a_replica_says_itself_counts_before_the_list() -> None:
    known = KnownReplicas([replica("a", running=2), replica("b", running=1)])
    router = ReplicaRouter(known)
    with way(router, routed(), "b") as one:
        one.began(ReplicaLoad(1, SLOTS, 0))
    assert way(router, routed()).replica.name == "a"
    known.listed[0] = replica("a", running=20)
    assert way(router, routed()).replica.name == "a", "the list was made before"


def test_the_list_counts_where_a_replica_said_nothing_of_late() -> None:
    now = [0.0]
    known = KnownReplicas([replica("a"), replica("b", running=1)])
    router = ReplicaRouter(known, now=lambda: now[0])
    with way(router, routed(), "b") as one:
        one.began(ReplicaLoad(1, SLOTS, 0))
    now[0] = 5.0
    known.listed[0] = replica("a", running=20)
    assert way(router, routed()).replica.name == "b"


def test_not_one_that_was_tried() -> None:
    assert _picked(routed(), replica("a"), replica("b", running=9), tried=("a",)) == {"b"}
    assert _picked(routed(), replica("a"), tried=("a",)) == {None}


def test_not_one_that_was_ejected_whatever_it_holds() -> None:
    router = _router(*map(replica, "abc"))
    lost = way(router, routed(STORY)).replica
    router.eject(lost)
    assert way(router, routed(STORY)).replica != lost


def test_not_another_models() -> None:
    assert _picked(routed(), Replica("a", "other-model", "http://a")) == {None}


def test_the_only_replica_is_taken_without_a_look() -> None:
    router = _router(replica("a"))
    unreadable = routed(STORY)._replace(body=None)  # type: ignore[arg-type]
    assert way(router, unreadable).replica.name == "a"


def test_only_this_models_replicas_are_compared() -> None:
    other = Replica("x", "other-model", "http://x")
    assert _picked(routed()._replace(base_model=BASE.id), other, replica("a")) == {"a"}
