"""Where Alembic enters; see chassis/migrations.py."""

from chassis import migrations
from orchestrator.models import Base

migrations.run(Base.metadata, "orchestrator")
