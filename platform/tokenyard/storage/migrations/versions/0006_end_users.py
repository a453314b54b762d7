"""Charges name the organization's own user that they are for, and usage can be summed by it."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_TABLE, _OLD = "billing_hourly_usage", "billing_hourly_usage_old"
_COUNTS = ("requests", "prompt_tokens", "cached_tokens", "completion_tokens", "trained_tokens", "amount")


def upgrade() -> None:
    op.add_column("billing_charges", sa.Column("end_user", sa.String(256), nullable=False, server_default=""))
    _key_of_hours()


def _key_of_hours() -> None:
    # SQLite cannot change the key of a table.
    for name in ("time", "hour"):
        op.drop_index(f"{_TABLE}_{name}", table_name=_TABLE)
    op.rename_table(_TABLE, _OLD)
    key: list[sa.Column[Any]] = [
        *(sa.Column(name, sa.String(96), nullable=False) for name in ("organization", "project", "key")),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("model", sa.String(256), nullable=False),
        sa.Column("price", sa.String(320), nullable=False),
        sa.Column("end_user", sa.String(256), nullable=False),
        sa.Column("hour_ms", sa.BigInteger(), nullable=False),
    ]
    counts = [sa.Column(name, sa.BigInteger(), nullable=False) for name in _COUNTS]
    op.create_table(_TABLE, *key, *counts, sa.PrimaryKeyConstraint(*(column.name for column in key)))
    same = ", ".join([*(column.name for column in key if column.name != "end_user"), *_COUNTS])
    op.execute(f"INSERT INTO {_TABLE} (end_user, {same}) SELECT '', {same} FROM {_OLD}")  # noqa: S608
    op.drop_table(_OLD)
    op.create_index(f"{_TABLE}_time", _TABLE, ["organization", "hour_ms"])
    op.create_index(f"{_TABLE}_hour", _TABLE, ["hour_ms"])
