"""Advisory locks need no table, organizations have no time zone, dead events are called dead letters."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_table("finetune_turns")
    op.drop_column("tenancy_organizations", "timezone")
    op.rename_table("billing_dead_events", "billing_dead_letters")
