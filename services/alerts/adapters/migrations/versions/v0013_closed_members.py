"""What has closed is a member of its cause too, whether or not the explainer saw it open."""

from alembic import op

from services.alerts.adapters.migrations import statements

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    for statement in statements("v0013_closed_members.sql"):
        op.execute(statement)
