"""Tables, row-level security, append-only guards and the packs' views."""

from alembic import op

from services.alerts.adapters.migrations import statements

revision = "0001"
down_revision = None


def upgrade() -> None:
    for statement in statements("v0001_tables.sql") + statements("v0001_guards.sql"):
        op.execute(statement)
