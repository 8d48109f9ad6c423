"""Who asked for a run over MCP, and why."""

from alembic import op

from services.alerts.adapters.migrations import statements

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    for statement in statements("v0008_run_requests.sql"):
        op.execute(statement)
