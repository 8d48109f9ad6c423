"""Near misses and clusters, and the queue of discrepancies that are to be looked at for them."""

from alembic import op

from services.alerts.adapters.migrations import statements

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    for statement in statements("v0002_explanations.sql"):
        op.execute(statement)
