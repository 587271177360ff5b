"""Orders are found by their correlation id."""

from alembic import op

from chassis import migrations

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    migrations.create_index("ix_orders_correlation", "orders", ["correlation_id", "created_at", "id"])


def downgrade() -> None:
    op.drop_index("ix_orders_correlation", "orders")
