"""The history of drifts, what is usual in it, and what is not."""

from alembic import op

from services.alerts.adapters.migrations import statements

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    for statement in statements("v0010_anomalies.sql"):
        op.execute(statement)
