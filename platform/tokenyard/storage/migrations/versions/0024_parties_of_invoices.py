"""Who issues invoices, who is billed, and both as they were when a document was issued."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

_JSON = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    op.create_table(
        "billing_details",
        sa.Column("organization", sa.String(96), primary_key=True),
        sa.Column("details", _JSON, nullable=False),
        sa.Column("changed_at_ms", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "billing_issuers",
        sa.Column("issuer", sa.String(128), primary_key=True),
        sa.Column("details", _JSON, nullable=False),
        sa.Column("changed_at_ms", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "billing_document_parties",
        sa.Column("document", sa.String(96), primary_key=True),
        sa.Column("organization", sa.String(96), nullable=False),
        sa.Column("seller", _JSON, nullable=False),
        sa.Column("buyer", _JSON, nullable=False),
    )
