"""How the feed of each source stands, as every partition of the matcher tells it."""

from alembic import op

from services.alerts.adapters.migrations import statements

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    for statement in statements("v0005_feeds.sql"):
        op.execute(statement)
