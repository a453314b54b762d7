"""A month's spending is found by its scope alone, as the budgets in Redis name it."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("billing_spending_month", "billing_spending", ["scope", "month"])
