"""Sagas are found by their correlation id and by the trace that they began in."""

from alembic import op

from chassis import migrations

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    migrations.create_index("ix_sagas_correlation", "sagas", ["correlation_id", "created_at", "id"])
    migrations.create_index("ix_sagas_traceparent", "sagas", ["traceparent"])


def downgrade() -> None:
    op.drop_index("ix_sagas_traceparent", "sagas")
    op.drop_index("ix_sagas_correlation", "sagas")
