"""A key that is prepared once gives the HMAC that the standard library gives."""

import hmac

from hypothesis import example, given
from hypothesis import strategies as st

from tokenyard.metering.keyed_hash import KeyedHash


@given(st.binary(max_size=200), st.lists(st.binary(max_size=200), min_size=1, max_size=3))
@example(b"k" * 64, [b""])
@example(b"k" * 65, [b"message"])
def test_it_is_hmac_sha256(key: bytes, messages: list[bytes]) -> None:
    keyed = KeyedHash(key)
    for message in messages:
        assert keyed.hex(message) == hmac.digest(key, message, "sha256").hex()
