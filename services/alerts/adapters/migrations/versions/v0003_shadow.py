"""What rules that only watch have found: stored, and left out of alerts, reports and views."""

from alembic import op

from services.alerts.adapters.migrations import statements

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    for statement in statements("v0003_shadow.sql"):
        op.execute(statement)
