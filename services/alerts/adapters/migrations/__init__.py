"""Alembic migrations of alerts' database: `upgrade` brings it to this build, `check_schema` refuses any other.

Each version is an SQL file beside a small module; a released version is never edited.
"""

import logging
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from shared.errors import UsageError

_HERE = Path(__file__).parent
_LOCK = 0x7469656F7574
"""Advisory lock of migrations: two `tieout migrate` at once run one after the other."""

# At INFO it tells at each look which dialect it speaks.
logging.getLogger("alembic.runtime.migration").setLevel(logging.WARNING)


class SchemaMismatch(UsageError):
    """The database is not at the schema of this build; the message says which side has to move."""


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_HERE))
    config.attributes["connection"] = connection
    return config


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


def head() -> str:
    """Return the schema version of this build."""
    version = _scripts().get_current_head()
    assert version is not None, "there is at least one migration"
    return version


def stored_version(connection: Connection) -> str | None:
    """Return the schema version of the database, None before the first migration."""
    return MigrationContext.configure(connection).get_current_revision()


def upgrade(connection: Connection) -> tuple[str | None, str]:
    """Bring the database to this build's schema inside the caller's transaction; return the versions before and after.

    Raises:
        SchemaMismatch: the database was migrated by a newer build.
    """
    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    before = stored_version(connection)
    _refuse_newer(before)
    command.upgrade(_config(connection), "head")
    return before, head()


def check_schema(connection: Connection) -> None:
    """Return when the database is at this build's schema.

    Raises:
        SchemaMismatch: not migrated, behind, or ahead of this build.
    """
    stored = stored_version(connection)
    if stored is None:
        raise SchemaMismatch("the database has no tieout tables: run `tieout migrate` first")
    _refuse_newer(stored)
    if stored != head():
        raise SchemaMismatch(f"the database is at schema {stored}, this build needs {head()}: run `tieout migrate`")


def _refuse_newer(stored: str | None) -> None:
    known = {script.revision for script in _scripts().walk_revisions()}
    if stored is not None and stored not in known:
        raise SchemaMismatch(
            f"the database is at schema {stored}, which is newer than this build ({head()}): deploy the newer build"
        )


def statements(file: str) -> list[str]:
    """Return the statements of one of the SQL files here; a statement ends with `;` at the end of a line."""
    sql = (_HERE / "versions" / file).read_text(encoding="utf-8")
    lines = [line for line in sql.splitlines() if not line.startswith("--")]
    return [part.strip() for part in "\n".join(lines).split(";\n") if part.strip().strip(";")]
