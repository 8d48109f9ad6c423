"""What rules of other kinds than match say: causes, explained parts, verdicts without a code, usage, confidence."""

from alembic import op

from services.alerts.adapters.migrations import statements

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    for statement in statements("v0004_kinds.sql"):
        op.execute(statement)
