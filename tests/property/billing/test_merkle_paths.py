"""A path leads from every leaf to the root, and from nothing else; the verifier, which shares no code, agrees."""

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.billing.proof_files import verifier
from tokenyard_billing.sealing.canonical import seal_hash
from tokenyard_billing.sealing.lines import DayDigest
from tokenyard_billing.sealing.merkle import leaf_hash, merkle_path, merkle_root

DAY = "2026-03-03"


VERIFY = verifier()


def rfc_6962(leaves: list[bytes]) -> bytes:
    """The tree as section 2.1 of the RFC writes it: cut at the largest power of two below the number of leaves."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    cut = 1 << ((len(leaves) - 1).bit_length() - 1)
    return hashlib.sha256(b"\x01" + rfc_6962(leaves[:cut]) + rfc_6962(leaves[cut:])).digest()


def parts_of(count: int) -> list[DayDigest]:
    return [DayDigest(f"org_{n:03d}", n, 2 * n, f"{n:064x}") for n in range(count)]


@given(st.lists(st.binary(max_size=8), max_size=70))
def test_the_root_is_that_of_the_rfc(contents: list[bytes]) -> None:
    leaves = [leaf_hash(content) for content in contents]
    assert merkle_root(leaves) == rfc_6962(leaves)


@given(st.integers(1, 70), st.data())
def test_every_path_is_verified_and_no_other_is(count: int, data: st.DataObject) -> None:
    parts = parts_of(count)
    leaves = [part.leaf for part in parts]
    index = data.draw(st.integers(0, count - 1))
    seal = {"root": merkle_root(leaves).hex(), "organizations": count}
    own, path = parts[index], [one.hex() for one in merkle_path(leaves, index)]

    def verify(**changes: Any) -> None:
        stated = {"charges": own.charges, "transactions": own.transactions, "digest": own.digest}
        stated |= {"index": index, "path": path} | changes
        VERIFY.verify_part(DAY, own.organization, stated, stated["digest"], seal)

    verify()
    wrong: list[dict[str, Any]] = [
        {"charges": own.charges + 1},
        {"digest": "f" * 64},
        {"path": [*path, "0" * 64]},
        {"index": count},
        {"index": -1},
    ]
    if path:
        wrong += [{"path": path[1:]}, {"path": path[:-1]}, {"path": [*path[:-1], "0" * 64]}]
        wrong += [{"index": data.draw(st.integers(0, count - 1).filter(lambda other: other != index))}]
    for changes in wrong:
        with pytest.raises(VERIFY.Wrong):
            verify(**changes)


@given(st.integers(0, 10**6), st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_the_verifier_hashes_a_seal_alike(organizations: int, previous: bytes, root: bytes) -> None:
    stated = {"previous": previous.hex(), "root": root.hex(), "organizations": organizations}
    own = seal_hash(DAY, previous=previous.hex(), root=root.hex(), organizations=organizations)
    VERIFY.verify_chain([{"day": DAY, **stated, "hash": own}])
