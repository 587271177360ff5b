"""In whose name an order was created, confirmed, canceled. Events of before have nobody's."""

import sqlalchemy as sa
from alembic import op

from chassis import dialects, migrations

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    migrations.add_column("order_events", sa.Column("principal", dialects.exact_text(511)))


def downgrade() -> None:
    op.drop_column("order_events", "principal")
