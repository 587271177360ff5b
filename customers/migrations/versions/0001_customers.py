"""Customers."""

import sqlalchemy as sa
from alembic import op

from chassis import dialects

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "customers",
        sa.Column("id", dialects.BigId, primary_key=True, autoincrement=True),
        sa.Column("name", dialects.free_text(200), nullable=False),
        sa.Column("email", dialects.exact_text(254), nullable=False),
        sa.Column("phone", dialects.exact_text(32)),
        sa.Column("is_active", sa.Boolean, nullable=False, server_default=sa.text("1")),
        sa.Column("version", sa.Integer, nullable=False, server_default=sa.text("1")),
        sa.Column("created_at", dialects.UtcDateTime(), nullable=False),
        sa.Column("updated_at", dialects.UtcDateTime(), nullable=False),
        sa.UniqueConstraint("email", name="uq_customers_email"),
        if_not_exists=True,
        **dialects.TABLE_OPTIONS,
    )


def downgrade() -> None:
    op.drop_table("customers")
