"""Endpoints hear of what the log holds from a time of the log's own clock on."""

from alembic import op

from services.alerts.adapters.migrations import statements

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    for statement in statements("v0012_hears_from.sql"):
        op.execute(statement)
