"""A plan may say what each gateway process grants its organizations while Redis is away."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("tenancy_plans", sa.Column("local_share", sa.JSON().with_variant(JSONB(), "postgresql")))
