"""The laws of choosing a replica, for any load and any requests."""

import random
from collections import Counter
from contextlib import ExitStack

import msgspec
from hypothesis import given
from hypothesis import strategies as some

from support.fakes.gateway_ports import KnownReplicas
from support.routing.routed_requests import SLOTS, replica, routed, way
from tokenyard.gateway.path.route import ReplicaRouter
from tokenyard.gateway.routing.choice import BOUND, SLACK, homes, within_bound
from tokenyard.gateway.routing.credits import ReplicaCredits
from tokenyard.gateway.routing.prefixes import ENDS, PrefixIndex, common_key, model_key, prefix_keys
from tokenyard.gateway.routing.recent import Recent

pressures = some.dictionaries(some.text(min_size=1), some.floats(0, 100), min_size=1, max_size=16)
prompts = some.text(alphabet="ab", max_size=20).map(lambda text: text * 100)
organizations = some.sampled_from(["acme", "globex", "initech"])


@given(pressures)
def test_load_is_bounded(pressures: dict[str, float]) -> None:
    found = within_bound(pressures)
    mean = sum(pressures.values()) / len(pressures)
    assert any(pressures[name] == min(pressures.values()) for name in found)
    assert all(pressures[name] < BOUND * mean + SLACK for name in found)
    if min(pressures.values()) < 1:
        assert all(pressures[name] < 1 for name in found), "nobody waits for a slot where another has one"


@given(
    some.lists(some.tuples(prompts, organizations, some.integers(1, 8), some.booleans()), max_size=120),
    some.integers(2, 6),
    some.randoms(use_true_random=False),
)
def test_no_replica_gets_more_than_its_bound_whatever_is_asked(
    requests: list[tuple[str, str, int, bool]], count: int, chance: random.Random
) -> None:
    replicas = [replica(f"r{number}") for number in range(count)]
    router = ReplicaRouter(KnownReplicas(replicas), chance=chance.random)
    under_way: Counter[str] = Counter()
    with ExitStack() as stack:
        for prompt, organization, sequences, tuned in requests:
            adapter = f"ft:{organization}" if tuned else None
            request = routed(prompt, organization=organization, adapter=adapter, sequences=sequences, prompt_tokens=0)
            taken = way(router, request)
            mean = under_way.total() / count
            assert under_way[taken.replica.name] < BOUND * mean + SLACK * SLOTS
            stack.enter_context(taken)
            under_way[taken.replica.name] += sequences


@given(prompts, prompts, organizations, organizations, some.booleans())
def test_keys_are_shared_by_what_begins_alike_within_an_organization(
    first: str, second: str, one: str, other: str, tuned: bool
) -> None:
    chains = []
    for prompt, organization in ((first, one), (second, other)):
        request = routed(prompt, organization=organization)
        model = f"ft:{organization}" if tuned else request.base_model
        chains.append(prefix_keys(request.body, model_key(request.salt, model)))
    shared = len(set(chains[0]) & set(chains[1]))
    if one != other:
        assert shared == 0
        return
    head = len(b'"messages":' + msgspec.json.encode([{"role": "user", "content": ""}])) - len(b'"}]')
    alike = next((at for at, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), -1)
    if alike >= 0:
        assert shared == sum(end <= head + alike for end in ENDS)
    assert chains[0][:shared] == chains[1][:shared]


@given(prompts, organizations)
def test_a_chain_has_few_keys(prompt: str, organization: str) -> None:
    request = routed(prompt * 100, organization=organization)
    assert len(prefix_keys(request.body, 0)) <= len(ENDS) < 32


@given(some.lists(some.tuples(some.lists(some.integers(0, 500), max_size=20), some.sampled_from("abcdefgh"))))
def test_the_index_holds_its_bound_and_what_was_just_sent(sent: list[tuple[list[int], str]]) -> None:
    index = PrefixIndex(64)
    for keys, name in sent:
        index.note(keys, name)
        assert len(index) <= 64
        if keys:
            assert index.matched(keys)[name] == len(keys)


@given(some.lists(some.integers(0, 40)), some.integers(1, 16))
def test_what_was_used_of_late_stays(used: list[int], half: int) -> None:
    recent: Recent[int, int] = Recent(2 * half)
    for at, key in enumerate(used):
        if recent.get(key) is None:
            recent.put(key, key)
        assert len(recent) <= 2 * half
        last = list(dict.fromkeys(reversed(used[: at + 1])))[:half]
        assert all(key in recent._young or key in recent._old for key in last)


@given(
    some.lists(some.tuples(some.sampled_from("abc"), some.integers(1, 300)), max_size=200),
    some.integers(2, 5),
)
def test_what_replicas_do_for_an_organization_never_differs_by_more_than_a_quantum_and_a_request(
    wishes: list[tuple[str, int]], count: int
) -> None:
    """Also where all that it sends would rather go to one of them."""
    names = [f"r{number}" for number in range(count)]
    quantum, most = 100, 300
    granted = ReplicaCredits(quantum)
    served: dict[str, Counter[str]] = {organization: Counter() for organization in "abc"}
    for organization, tokens in wishes:
        name = granted.with_credit(organization, names)[0]
        granted.spend(organization, name, tokens)
        served[organization][name] += tokens
        amounts = [served[organization][one] for one in names]
        assert max(amounts) - min(amounts) <= quantum + most


@given(some.integers(0, 2**64 - 1), some.sets(some.text(min_size=1), min_size=2, max_size=12), some.data())
def test_a_home_stays_while_its_replica_does(key: int, names: set[str], data: some.DataObject) -> None:
    listed = sorted(names)
    first, second = homes(key, listed)
    assert list(homes(key, data.draw(some.permutations(listed)))) == [first, second]
    gone = data.draw(some.sampled_from(listed))
    if len(listed) > 2 and gone not in (first, second):
        assert list(homes(key, [one for one in listed if one != gone])) == [first, second]


def test_homes_are_spread() -> None:
    names = [f"replica-{number}" for number in range(5)]
    found: Counter[str] = Counter()
    for number in range(5000):
        key = common_key(b"", "salt", f"ft:model:{number}", of_model=True)
        assert key is not None
        found[homes(key, names)[0]] += 1
    assert max(found.values()) < 1.15 * 5000 / 5
