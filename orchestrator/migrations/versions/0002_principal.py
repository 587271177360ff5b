"""In whose name a saga acts. Sagas of before have none and act as nobody in particular."""

import sqlalchemy as sa
from alembic import op

from chassis import dialects, migrations

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    migrations.add_column("sagas", sa.Column("principal", dialects.exact_text(511)))


def downgrade() -> None:
    op.drop_column("sagas", "principal")
