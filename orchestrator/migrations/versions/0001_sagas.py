"""Sagas and idempotency keys."""

import sqlalchemy as sa
from alembic import op

from chassis import dialects, migrations

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "sagas",
        sa.Column("id", dialects.exact_text(32), primary_key=True),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("step", sa.String(32)),
        sa.Column("request", dialects.Json(), nullable=False),
        sa.Column("customer", dialects.Json()),
        sa.Column("order_snapshot", dialects.Json()),
        sa.Column("refusal", dialects.Json()),
        sa.Column("steps", dialects.Json(), nullable=False),
        sa.Column("attention", dialects.free_text(200)),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("correlation_id", dialects.exact_text(128), nullable=False),
        sa.Column("traceparent", dialects.exact_text(55), nullable=False),
        sa.Column("key_scope", dialects.exact_bytes(160), nullable=False),
        sa.Column("key_value", dialects.exact_bytes(255), nullable=False),
        sa.Column("lease_token", sa.BigInteger, nullable=False),
        sa.Column("lease_until", dialects.UtcDateTime(), nullable=False),
        sa.Column("resume_at", dialects.UtcDateTime(), nullable=False),
        sa.Column("created_at", dialects.UtcDateTime(), nullable=False),
        sa.Column("updated_at", dialects.UtcDateTime(), nullable=False),
        sa.Column("finished_at", dialects.UtcDateTime()),
        if_not_exists=True,
        **dialects.TABLE_OPTIONS,
    )
    migrations.create_index("ix_sagas_created", "sagas", ["created_at", "id"])
    migrations.create_index("ix_sagas_status", "sagas", ["status", "created_at", "id"])
    migrations.create_index("ix_sagas_resume", "sagas", ["status", "resume_at"])
    op.create_table(
        "orchestrator_idempotency_keys",
        sa.Column("scope", dialects.exact_bytes(160), primary_key=True),
        sa.Column("key", dialects.exact_bytes(255), primary_key=True),
        sa.Column("fingerprint", dialects.exact_bytes(32), nullable=False),
        sa.Column("resource", sa.String(64)),
        sa.Column("status", sa.SmallInteger),
        sa.Column("body", dialects.long_bytes()),
        sa.Column("headers", dialects.long_text()),
        sa.Column("created_at", dialects.UtcDateTime(), nullable=False),
        sa.Column("completed_at", dialects.UtcDateTime()),
        if_not_exists=True,
        **dialects.TABLE_OPTIONS,
    )
    migrations.create_index(
        "ix_orchestrator_idempotency_keys_completed_at", "orchestrator_idempotency_keys", ["completed_at"]
    )


def downgrade() -> None:
    op.drop_table("orchestrator_idempotency_keys")
    op.drop_table("sagas")
