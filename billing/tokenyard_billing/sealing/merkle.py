"""Merkle trees as RFC 6962 makes them: leaves and nodes are hashed apart, so that no node passes for a leaf. Pure."""

from collections.abc import Sequence
from hashlib import sha256


def leaf_hash(content: bytes) -> bytes:
    return sha256(b"\x00" + content).digest()


def merkle_root(leaves: Sequence[bytes]) -> bytes:
    """Return the root over the hashes of leaves; that of none is the hash of nothing."""
    if not leaves:
        return sha256().digest()
    level = list(leaves)
    while len(level) > 1:
        level = _above(level)
    return level[0]


def merkle_path(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """Return the hashes that lead from a leaf to the root, the nearest first."""
    level, path = list(leaves), []
    while len(level) > 1:
        if (other := index ^ 1) < len(level):
            path.append(level[other])
        level, index = _above(level), index // 2
    return path


def _above(level: Sequence[bytes]) -> list[bytes]:
    """Return the next level; the last of an odd number goes up as it is."""
    pairs = [sha256(b"\x01" + left + right).digest() for left, right in zip(level[::2], level[1::2], strict=False)]
    return pairs if len(level) % 2 == 0 else [*pairs, level[-1]]
