"""First tables."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "billing_accounts",
        sa.Column("organization", sa.String(length=96), nullable=False),
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("opened_at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("organization", "name"),
    )
    op.create_table(
        "billing_alarms",
        sa.Column("kind", sa.String(length=48), nullable=False),
        sa.Column("subject", sa.String(length=128), nullable=False),
        sa.Column("organization", sa.String(length=96), nullable=True),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("kind", "subject"),
    )
    op.create_index("billing_alarms_time", "billing_alarms", ["at_ms"])
    op.create_table(
        "billing_balances",
        sa.Column("organization", sa.String(length=96), nullable=False),
        sa.Column("account", sa.String(length=32), nullable=False),
        sa.Column("bucket", sa.Integer(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("updated_at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("organization", "account"),
    )
    op.create_index("billing_balances_bucket", "billing_balances", ["bucket", "account", "updated_at_ms"])
    op.create_table(
        "billing_bucket_leases",
        sa.Column("bucket", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("holder", sa.String(length=96), nullable=False),
        sa.Column("lease_until_ms", sa.BigInteger(), nullable=False),
        sa.Column("watermark_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("bucket"),
    )
    op.create_table(
        "billing_charges",
        sa.Column("charge_key", sa.String(length=96), nullable=False),
        sa.Column("organization", sa.String(length=96), nullable=False),
        sa.Column("project", sa.String(length=96), nullable=False),
        sa.Column("key", sa.String(length=96), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("rule", sa.String(length=32), nullable=False),
        sa.Column("endpoint", sa.String(length=64), nullable=False),
        sa.Column("model", sa.String(length=256), nullable=False),
        sa.Column("base_model", sa.String(length=256), nullable=False),
        sa.Column("price", sa.String(length=320), nullable=False),
        sa.Column("attempt", sa.String(length=96), nullable=True),
        sa.Column("prompt_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cached_tokens", sa.BigInteger(), nullable=False),
        sa.Column("completion_tokens", sa.BigInteger(), nullable=False),
        sa.Column("trained_tokens", sa.BigInteger(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("budgets", sa.Text(), nullable=False),
        sa.Column("admitted_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("charged_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("period", sa.String(length=7), nullable=False),
        sa.Column("time_zone", sa.String(length=64), nullable=False),
        sa.Column("transaction", sa.String(length=96), nullable=True),
        sa.PrimaryKeyConstraint("charge_key"),
    )
    op.create_index("billing_charges_period", "billing_charges", ["organization", "period"])
    op.create_index("billing_charges_time", "billing_charges", ["organization", "admitted_at_ms"])
    op.create_index("billing_charges_transaction", "billing_charges", ["transaction"])
    op.create_table(
        "billing_consumers",
        sa.Column("name", sa.String(length=96), nullable=False),
        sa.Column("alive_until_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "billing_credit_grants",
        sa.Column("organization", sa.String(length=96), nullable=False),
        sa.Column("idempotency_key", sa.String(length=128), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("actor", sa.String(length=96), nullable=False),
        sa.Column("transaction", sa.String(length=96), nullable=False),
        sa.Column("granted_at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("organization", "idempotency_key"),
    )
    op.create_table(
        "billing_dead_events",
        sa.Column("stream", sa.String(length=64), nullable=False),
        sa.Column("entry", sa.String(length=48), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("deliveries", sa.Integer(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("stream", "entry"),
    )
    op.create_table(
        "billing_hourly_usage",
        sa.Column("organization", sa.String(length=96), nullable=False),
        sa.Column("project", sa.String(length=96), nullable=False),
        sa.Column("key", sa.String(length=96), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("model", sa.String(length=256), nullable=False),
        sa.Column("price", sa.String(length=320), nullable=False),
        sa.Column("hour_ms", sa.BigInteger(), nullable=False),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cached_tokens", sa.BigInteger(), nullable=False),
        sa.Column("completion_tokens", sa.BigInteger(), nullable=False),
        sa.Column("trained_tokens", sa.BigInteger(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("organization", "project", "key", "kind", "model", "price", "hour_ms"),
    )
    op.create_index("billing_hourly_usage_hour", "billing_hourly_usage", ["hour_ms"])
    op.create_index("billing_hourly_usage_time", "billing_hourly_usage", ["organization", "hour_ms"])
    op.create_table(
        "billing_invoices",
        sa.Column("id", sa.String(length=96), nullable=False),
        sa.Column("organization", sa.String(length=96), nullable=False),
        sa.Column("period", sa.String(length=7), nullable=False),
        sa.Column("time_zone", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=False),
        sa.Column("credit_applied", sa.BigInteger(), nullable=False),
        sa.Column("amount_due", sa.BigInteger(), nullable=False),
        sa.Column("drafted_at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("billing_invoices_organization", "billing_invoices", ["organization", "period"], unique=True)
    op.create_table(
        "billing_open_requests",
        sa.Column("request", sa.String(length=96), nullable=False),
        sa.Column("organization", sa.String(length=96), nullable=False),
        sa.Column("bucket", sa.Integer(), nullable=False),
        sa.Column("looked_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("deadline_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("request"),
    )
    op.create_index("billing_open_requests_deadline", "billing_open_requests", ["bucket", "deadline_ms"])
    op.create_table(
        "billing_rate_cards",
        sa.Column("version", sa.String(length=64), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("first_used_at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("version"),
    )
    op.create_table(
        "billing_reservations",
        sa.Column("job", sa.String(length=96), nullable=False),
        sa.Column("organization", sa.String(length=96), nullable=False),
        sa.Column("project", sa.String(length=96), nullable=False),
        sa.Column("key", sa.String(length=96), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("budgets", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reserved_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("closed_at_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("job"),
    )
    op.create_index("billing_reservations_organization", "billing_reservations", ["organization", "state"])
    op.create_table(
        "billing_spending",
        sa.Column("organization", sa.String(length=96), nullable=False),
        sa.Column("scope", sa.String(length=96), nullable=False),
        sa.Column("month", sa.String(length=7), nullable=False),
        sa.Column("spent", sa.BigInteger(), nullable=False),
        sa.Column("reserved", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("organization", "scope", "month"),
    )
    op.create_table(
        "billing_transactions",
        sa.Column("id", sa.String(length=96), nullable=False),
        sa.Column("organization", sa.String(length=96), nullable=False),
        sa.Column("template", sa.String(length=32), nullable=False),
        sa.Column("reference", sa.String(length=128), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("actor", sa.String(length=96), nullable=False),
        sa.Column("posted_at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("billing_transactions_organization", "billing_transactions", ["organization", "posted_at_ms"])
    op.create_table(
        "billing_usage_reports",
        sa.Column("attempt", sa.String(length=96), nullable=False),
        sa.Column("witness", sa.String(length=8), nullable=False),
        sa.Column("request", sa.String(length=96), nullable=False),
        sa.Column("organization", sa.String(length=96), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cached_tokens", sa.BigInteger(), nullable=False),
        sa.Column("completion_tokens", sa.BigInteger(), nullable=False),
        sa.Column("claims", sa.Text(), nullable=False),
        sa.Column("replica", sa.String(length=256), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("received_at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("attempt", "witness"),
    )
    op.create_index("billing_usage_reports_organization", "billing_usage_reports", ["organization", "received_at_ms"])
    op.create_index("billing_usage_reports_request", "billing_usage_reports", ["request"])
    op.create_table(
        "billing_waste",
        sa.Column("attempt", sa.String(length=96), nullable=False),
        sa.Column("request", sa.String(length=96), nullable=False),
        sa.Column("organization", sa.String(length=96), nullable=False),
        sa.Column("model", sa.String(length=256), nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cached_tokens", sa.BigInteger(), nullable=False),
        sa.Column("completion_tokens", sa.BigInteger(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("attempt"),
    )
    op.create_index("billing_waste_organization", "billing_waste", ["organization", "at_ms"])
    op.create_index("billing_waste_request", "billing_waste", ["request"])
    op.create_table(
        "catalog_adapters",
        sa.Column("id", sa.String(length=96), nullable=False),
        sa.Column("organization", sa.String(length=96), nullable=False),
        sa.Column("project", sa.String(length=96), nullable=False),
        sa.Column("job", sa.String(length=96), nullable=False),
        sa.Column("base", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("path", sa.String(length=255), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.String(length=1000), nullable=True),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("live_ms", sa.BigInteger(), nullable=True),
        sa.Column("retired_ms", sa.BigInteger(), nullable=True),
        sa.Column("files_deleted_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name"),
    )
    op.create_index("ix_catalog_adapters_deleting", "catalog_adapters", ["state", "files_deleted_ms", "retired_ms"])
    op.create_index("ix_catalog_adapters_organization", "catalog_adapters", ["organization", "state"])
    op.create_index("ix_catalog_adapters_placing", "catalog_adapters", ["base", "state", "live_ms"])
    op.create_table(
        "catalog_revisions",
        sa.Column("organization", sa.String(length=96), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("organization"),
    )
    op.create_table(
        "finetune_checkpoints",
        sa.Column("id", sa.String(length=96), nullable=False),
        sa.Column("organization", sa.String(length=96), nullable=False),
        sa.Column("job", sa.String(length=96), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("step_number", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("path", sa.String(length=255), nullable=False),
        sa.Column("metrics", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("job", "step_number"),
    )
    op.create_table(
        "finetune_events",
        sa.Column("id", sa.String(length=96), nullable=False),
        sa.Column("organization", sa.String(length=96), nullable=False),
        sa.Column("job", sa.String(length=96), nullable=False),
        sa.Column("source", sa.String(length=64), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("level", sa.String(length=8), nullable=False),
        sa.Column("type", sa.String(length=8), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("data", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("job", "source"),
    )
    op.create_index("ix_finetune_events_list", "finetune_events", ["job", "number"])
    op.create_table(
        "finetune_files",
        sa.Column("id", sa.String(length=96), nullable=False),
        sa.Column("organization", sa.String(length=96), nullable=False),
        sa.Column("project", sa.String(length=96), nullable=False),
        sa.Column("filename", sa.String(length=255), nullable=False),
        sa.Column("purpose", sa.String(length=32), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.Column("summary", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_finetune_files_list", "finetune_files", ["organization", "created_at_ms", "id"])
    op.create_index("ix_finetune_files_state", "finetune_files", ["state"])
    op.create_table(
        "finetune_jobs",
        sa.Column("id", sa.String(length=96), nullable=False),
        sa.Column("organization", sa.String(length=96), nullable=False),
        sa.Column("project", sa.String(length=96), nullable=False),
        sa.Column("key", sa.String(length=96), nullable=False),
        sa.Column("organization_slug", sa.String(length=64), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.Column("model", sa.String(length=128), nullable=False),
        sa.Column("suffix", sa.String(length=64), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("training_file", sa.String(length=96), nullable=False),
        sa.Column("validation_file", sa.String(length=96), nullable=True),
        sa.Column("hyperparameters", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=False),
        sa.Column("details", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=False),
        sa.Column("has_details", sa.Boolean(), nullable=False),
        sa.Column("price", sa.String(length=96), nullable=False),
        sa.Column("reserved_tokens", sa.BigInteger(), nullable=False),
        sa.Column("reserved_amount", sa.BigInteger(), nullable=False),
        sa.Column("admitted_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(length=24), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=True),
        sa.Column("error", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=True),
        sa.Column("trained_tokens", sa.BigInteger(), nullable=True),
        sa.Column("adapter", sa.String(length=96), nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("submitted", sa.Boolean(), nullable=False),
        sa.Column("events_taken", sa.Integer(), nullable=False),
        sa.Column("resume_url", sa.String(length=512), nullable=True),
        sa.Column("deadline_ms", sa.BigInteger(), nullable=True),
        sa.Column("digest", sa.String(length=64), nullable=True),
        sa.Column("waits_for", sa.Text(), nullable=True),
        sa.Column("slot", sa.Integer(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("lease_owner", sa.String(length=64), nullable=True),
        sa.Column("lease_until_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("slot"),
    )
    op.create_index("ix_finetune_jobs_due", "finetune_jobs", ["state", "lease_until_ms"])
    op.create_index("ix_finetune_jobs_list", "finetune_jobs", ["organization", "created_at_ms", "id"])
    op.create_table(
        "finetune_turns",
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("turn", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "tenancy_audit_log",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("organization", sa.String(length=96), nullable=True),
        sa.Column("actor", sa.String(length=96), nullable=False),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("resource", sa.String(length=96), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("details", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_tenancy_audit_log_organization", "tenancy_audit_log", ["organization", "id"])
    op.create_table(
        "tenancy_organizations",
        sa.Column("id", sa.String(length=96), nullable=False),
        sa.Column("slug", sa.String(length=40), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("default_project", sa.String(length=96), nullable=False),
        sa.Column("weight", sa.Integer(), nullable=False),
        sa.Column("timezone", sa.String(length=64), nullable=False),
        sa.Column("limits", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("archived", sa.BigInteger(), nullable=True),
        sa.Column("announced", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("slug"),
    )
    op.create_index("ix_tenancy_organizations_announced", "tenancy_organizations", ["announced"])
    op.create_table(
        "billing_entries",
        sa.Column("transaction", sa.String(length=96), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("organization", sa.String(length=96), nullable=False),
        sa.Column("account", sa.String(length=32), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["transaction"], ["billing_transactions.id"]),
        sa.PrimaryKeyConstraint("transaction", "number"),
    )
    op.create_index("billing_entries_account", "billing_entries", ["organization", "account"])
    op.create_table(
        "billing_invoice_lines",
        sa.Column("invoice", sa.String(length=96), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("model", sa.String(length=256), nullable=False),
        sa.Column("price", sa.String(length=320), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("quantity", sa.BigInteger(), nullable=False),
        sa.Column("rate", sa.BigInteger(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["invoice"], ["billing_invoices.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("invoice", "number"),
    )
    op.create_table(
        "catalog_aliases",
        sa.Column("organization", sa.String(length=96), nullable=False),
        sa.Column("alias", sa.String(length=64), nullable=False),
        sa.Column("model", sa.String(length=255), nullable=False),
        sa.Column("adapter", sa.String(length=96), nullable=True),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["adapter"], ["catalog_adapters.id"]),
        sa.PrimaryKeyConstraint("organization", "alias"),
    )
    op.create_table(
        "tenancy_projects",
        sa.Column("id", sa.String(length=96), nullable=False),
        sa.Column("organization", sa.String(length=96), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("limits", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("archived", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["organization"], ["tenancy_organizations.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_tenancy_projects_organization", "tenancy_projects", ["organization"])
    op.create_table(
        "tenancy_api_keys",
        sa.Column("id", sa.String(length=96), nullable=False),
        sa.Column("organization", sa.String(length=96), nullable=True),
        sa.Column("project", sa.String(length=96), nullable=True),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("last4", sa.String(length=4), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("pepper_version", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("limits", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=True),
        sa.Column("revoked", sa.BigInteger(), nullable=True),
        sa.Column("changed_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["organization"], ["tenancy_organizations.id"]),
        sa.ForeignKeyConstraint(["project"], ["tenancy_projects.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("hash"),
    )
    op.create_index("ix_tenancy_api_keys_changed_ms", "tenancy_api_keys", ["changed_ms"])
    op.create_index("ix_tenancy_api_keys_owner", "tenancy_api_keys", ["organization", "project"])
