"""Alembic's entry: runs the versions on the connection that `upgrade` hands in, within its transaction."""

from alembic import context

from services.alerts.adapters.tables import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata)
context.run_migrations()
