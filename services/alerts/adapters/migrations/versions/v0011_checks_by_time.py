"""Verdicts by pack and log time: who shows how accounts stand asks for what was judged since the last look."""

from alembic import op

from services.alerts.adapters.migrations import statements

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    for statement in statements("v0011_checks_by_time.sql"):
        op.execute(statement)
