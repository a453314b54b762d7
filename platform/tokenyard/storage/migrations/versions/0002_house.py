"""Advisory locks need no table, and organizations have no time zone."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_table("finetune_turns")
    op.drop_column("tenancy_organizations", "timezone")
