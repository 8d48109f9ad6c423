"""Budgets: append-only reconciliations whose identity the database holds, tracked usage, odometer readings."""

from alembic import op

from services.alerts.adapters.migrations import statements

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    for statement in statements("v0007_budgets.sql"):
        op.execute(statement)
