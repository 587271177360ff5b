"""Where Alembic enters; see chassis/migrations.py."""

from chassis import migrations
from customers.models import Base

migrations.run(Base.metadata, "customers")
