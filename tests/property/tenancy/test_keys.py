"""The format of keys: what we make is accepted, what was touched is refused, hashes tell peppers apart."""

import string

from hypothesis import given
from hypothesis import strategies as st

from tokenyard.core.principal import Role
from tokenyard.tenancy.keys import MAX_LENGTH, KeyHasher, Pepper, new_secret, redacted, redacted_guess, role_of

ROLES = st.sampled_from(list(Role))
BASE62 = string.digits + string.ascii_letters


@given(ROLES)
def test_a_new_key_is_well_formed_and_tells_its_role(role: Role) -> None:
    secret = new_secret(role)
    assert role_of(secret) is role
    assert len(secret) <= MAX_LENGTH
    assert secret.startswith("ty-admin-" if role is Role.OPERATOR else "ty-")


@given(ROLES, st.data())
def test_one_wrong_character_is_refused(role: Role, data: st.DataObject) -> None:
    secret = new_secret(role)
    at = data.draw(st.integers(0, len(secret) - 1))
    other = data.draw(st.sampled_from(BASE62 + "-_ ").filter(lambda letter: letter != secret[at]))
    assert role_of(secret[:at] + other + secret[at + 1 :]) is None


@given(ROLES, st.data())
def test_a_key_cut_short_or_made_longer_is_refused(role: Role, data: st.DataObject) -> None:
    secret = new_secret(role)
    assert role_of(secret[: data.draw(st.integers(0, len(secret) - 1))]) is None
    assert role_of(secret + data.draw(st.text(min_size=1, max_size=5))) is None


@given(st.text(max_size=80))
def test_any_text_is_refused_without_an_error(text: str) -> None:
    assert role_of(text) is None
    KeyHasher([Pepper(1, b"pepper")]).hash(text)
    assert len(redacted_guess(text)) <= 10


def test_a_lone_surrogate_from_a_header_is_hashed_without_an_error() -> None:
    KeyHasher([Pepper(1, b"pepper")]).hash("ty-\udcff\ud800")


def test_ten_thousand_keys_are_all_different() -> None:
    assert len({new_secret(Role.TENANT) for _ in range(10_000)}) == 10_000


@given(ROLES)
def test_what_is_shown_of_a_key_holds_four_characters_of_it(role: Role) -> None:
    secret = new_secret(role)
    shown = redacted(role, secret[-4:])
    assert shown.endswith(secret[-4:])
    assert secret[9:-4] not in shown
    assert secret[9:-4] not in redacted_guess(secret)


@given(ROLES)
def test_a_hash_is_the_same_again_and_differs_by_pepper(role: Role) -> None:
    secret = new_secret(role)
    old, new = Pepper(1, b"one"), Pepper(2, b"two")
    both = KeyHasher([new, old])
    assert both.version == 2
    assert both.hash(secret) == KeyHasher([new]).hash(secret) != KeyHasher([old]).hash(secret)
    assert both.hashes(secret) == (KeyHasher([new]).hash(secret), KeyHasher([old]).hash(secret))
