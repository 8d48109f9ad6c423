"""Attempts of auto-correction."""

from alembic import op

from services.alerts.adapters.migrations import statements

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    for statement in statements("v0009_corrections.sql"):
        op.execute(statement)
