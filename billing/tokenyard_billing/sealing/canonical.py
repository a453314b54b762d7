"""The exact bytes that seals are made of: JSON with sorted keys, without spaces, in UTF-8. Pure.

`FORMAT` is in all that is hashed. Whoever changes what is written here makes another one: sealed days keep theirs.
"""

from collections.abc import Mapping, Sequence
from hashlib import sha256

import msgspec

FORMAT = 1
CHARGE_FIELDS = (
    *("charge_key", "organization", "project", "key", "kind", "rule", "endpoint", "end_user", "model", "base_model"),
    *("service_tier", "price", "attempt", "prompt_tokens", "cached_tokens", "completion_tokens", "trained_tokens"),
    *("hosted_hours", "pinned_hours", "stored_months", "fees", "amount", "budgets", "admitted_at_ms", "charged_at_ms"),
    *("period", "time_zone", "billed_in", "transaction", "correction", "reverses", "credit_note"),
)
TRANSACTION_FIELDS = ("id", "organization", "template", "reference", "reason", "actor", "posted_at_ms")
ENTRY_FIELDS = ("number", "account", "amount")
_ENCODER = msgspec.json.Encoder(order="sorted")


def day_header(day: str, organization: str) -> bytes:
    """Return the first line of what an organization recorded on a day."""
    return _line({"record": "day", "format": FORMAT, "day": day, "organization": organization})


def charge_line(values: Sequence[object]) -> bytes:
    """Return the line of a charge; `values` are of `CHARGE_FIELDS`."""
    return _line({"record": "charge", **dict(zip(CHARGE_FIELDS, values, strict=True))})


def transaction_line(values: Sequence[object], entries: Sequence[Sequence[object]]) -> bytes:
    """Return the line of a journal transaction with its entries; the values of each are of `ENTRY_FIELDS`."""
    lines = [dict(zip(ENTRY_FIELDS, entry, strict=True)) for entry in entries]
    return _line({"record": "transaction", **dict(zip(TRANSACTION_FIELDS, values, strict=True)), "entries": lines})


def leaf_statement(organization: str, *, charges: int, transactions: int, digest: str) -> bytes:
    """Return what the leaf of an organization's day is the hash of."""
    return _ENCODER.encode(
        {"organization": organization, "charges": charges, "transactions": transactions, "digest": digest}
    )


def seal_hash(day: str, *, previous: str, root: str, organizations: int) -> str:
    """Return the hash of a day's seal."""
    stated = {"format": FORMAT, "day": day, "previous": previous, "root": root, "organizations": organizations}
    return sha256(_ENCODER.encode(stated)).hexdigest()


def _line(values: Mapping[str, object]) -> bytes:
    return _ENCODER.encode(values) + b"\n"
