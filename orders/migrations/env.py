"""Where Alembic enters; see chassis/migrations.py."""

from chassis import migrations
from orders.models import Base

migrations.run(Base.metadata, "orders")
