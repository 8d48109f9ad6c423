"""Runs by the hour and by the day, their checks and durations, and the stack pack's own names over the one store."""

from alembic import op

from services.alerts.adapters.migrations import statements

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    for statement in statements("v0006_schedule.sql"):
        op.execute(statement)
