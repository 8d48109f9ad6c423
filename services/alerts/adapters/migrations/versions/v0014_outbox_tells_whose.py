"""The signal that messages were stored says for which endpoints."""

from alembic import op

from services.alerts.adapters.migrations import statements

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    for statement in statements("v0014_outbox_tells_whose.sql"):
        op.execute(statement)
