"""PostgreSQL: the engine, transactions that say whose rows they touch, migrations and the app role.

Services never work as the owner of the tables: each connection takes on the app role when it is opened, whichever
login the URL names, and row-level security holds for it.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import asyncpg
from sqlalchemy import URL, Connection, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, DisconnectionError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from services.alerts.adapters.migrations import check_schema, upgrade
from services.alerts.adapters.tables import APPEND_ONLY_TABLES, metadata
from shared.errors import DependencyAway, UsageError

EVERY_ORG: Final = "*"
"""Scope of the sink, the dispatcher and the scheduler, which work for all organisations; no organisation's name."""
COMMAND_TIMEOUT_S: Final = 60
"""A statement that takes longer is stuck: a whole batch of the sink takes below a second."""
RETRY_PAUSE_S_MIN: Final = 0.1
RETRY_PAUSE_S_MAX: Final = 2.0
"""A PostgreSQL that starts takes seconds; asking more often than this only fills its log."""
_ROLE_NAME: Final = re.compile(r"[a-z_][a-z0-9_]{0,62}")

_T = TypeVar("_T")


class DatabaseAway(DependencyAway):
    """PostgreSQL does not answer: it is down, starting or the address is wrong."""


class DatabaseRefused(UsageError):
    """PostgreSQL answers, and does not let this login or role in."""


def database_url(value: str) -> URL:
    """Read a connection URL; `postgresql://` is taken as `postgresql+asyncpg://`.

    Raises:
        UsageError: not a PostgreSQL URL. The message never holds the password.
    """
    try:
        url = make_url(value)
    except ArgumentError:
        raise UsageError(
            "TIEOUT_DATABASE_URL is no URL: write postgresql+asyncpg://USER:PASSWORD@HOST:5432/NAME"
        ) from None
    if url.get_backend_name() != "postgresql":
        raise UsageError(f"TIEOUT_DATABASE_URL names {url.get_backend_name()!r}; tieout needs PostgreSQL")
    return url.set(drivername="postgresql+asyncpg")


def shown(url: URL) -> str:
    """Return host, port and database: what an error may show."""
    host = url.host or url.query.get("host") or "localhost"
    return f"{host}:{url.port or url.query.get('port') or 5432}/{url.database or ''}"


def is_away(error: BaseException) -> bool:
    """Tell whether `error` means that PostgreSQL cannot be reached now, so that trying again later makes sense."""
    if isinstance(error, DBAPIError):
        return error.connection_invalidated or is_away(_cause(error))
    if isinstance(error, asyncpg.PostgresError):
        state = error.sqlstate or ""
        # 08: connection; 53: no room on its disk, no memory, no connection left; 57P0x: shutting down or starting;
        # 25006: a standby.
        return state.startswith(("08", "53", "57P0")) or state == "25006"
    if isinstance(error, asyncpg.InterfaceError):
        return "closed" in str(error)
    return isinstance(error, OSError)


def _cause(error: DBAPIError) -> BaseException:
    """The driver's own error, which SQLAlchemy wraps twice."""
    original = error.orig or error
    return original.__cause__ or original


def _refusal(error: Exception, url: URL, role: str | None) -> UsageError | None:
    """The sentence for a login or role that PostgreSQL does not accept; waiting does not help then."""
    cause = _cause(error) if isinstance(error, DBAPIError) else error
    state = getattr(cause, "sqlstate", None) or ""
    if state.startswith("28") or state == "3D000":
        return DatabaseRefused(f"PostgreSQL at {shown(url)} refuses the login of TIEOUT_DATABASE_URL: {_reason(cause)}")
    if state == "22023" and role is not None and f'"{role}"' in str(cause):
        return DatabaseRefused(f"PostgreSQL at {shown(url)} has no role {role}: run `tieout migrate` first")
    if state == "42501" and role is not None and "set role" in str(cause):
        return DatabaseRefused(
            f"the login of TIEOUT_DATABASE_URL is no member of {role}: run `tieout migrate` with it, or GRANT {role} to it"
        )
    return None


class Database:
    """Connections to one database, each in the app role.

    Args:
        url: see `database_url`.
        role: taken on by every connection; None stays the login (migrations).
        pool_size: connections kept open; as many again may be opened for a moment.
    """

    def __init__(self, url: str | URL, *, role: str | None = "tieout_app", pool_size: int = 5) -> None:
        self.url = database_url(url) if isinstance(url, str) else url
        self.role = role
        settings = {"application_name": "tieout", "timezone": "UTC"}
        if role is not None:
            settings["role"] = _role_name(role)
        self.engine: AsyncEngine = create_async_engine(
            self.url,
            pool_size=pool_size,
            max_overflow=pool_size,
            connect_args={"server_settings": settings, "command_timeout": COMMAND_TIMEOUT_S},
            # A path may hold a customer's data: parameters stay out of errors and logs.
            hide_parameters=True,
        )
        event.listen(self.engine.sync_engine, "checkout", _refuse_closed)

    @asynccontextmanager
    async def transaction(self, org: str) -> AsyncIterator[AsyncConnection]:
        """One transaction that sees and writes the rows of `org` only (`EVERY_ORG`: of all).

        Raises:
            DatabaseAway: PostgreSQL cannot be reached; nothing was committed, unless it went away during the commit.
        """
        driver: asyncpg.Connection | None = None
        try:
            async with self.engine.begin() as connection:
                driver = _driver_of(connection)
                await connection.execute(text("SELECT set_config('tieout.org', :org, true)"), {"org": org})
                yield connection
        except Exception as error:
            # A server that dies in the middle shows in many ways, "another operation is in progress" among them.
            if is_away(error) or (driver is not None and driver.is_closed()):
                raise DatabaseAway(f"PostgreSQL at {shown(self.url)} does not answer: {_reason(error)}") from error
            refusal = _refusal(error, self.url, self.role)
            if refusal is not None:
                raise refusal from error
            raise

    async def ping(self) -> None:
        """Raises `DatabaseAway` when PostgreSQL does not answer."""
        async with self.transaction(EVERY_ORG):
            pass

    async def require_schema(self) -> None:
        """Return when the database is at the schema of this build.

        Raises:
            SchemaMismatch: not migrated, behind or ahead: the message says what to do.
            DatabaseAway: it does not answer.
        """
        async with self.transaction(EVERY_ORG) as connection:
            await connection.run_sync(check_schema)

    async def close(self) -> None:
        await self.engine.dispose()


def _driver_of(connection: AsyncConnection) -> asyncpg.Connection | None:
    raw = connection.sync_connection
    return None if raw is None else raw.connection.driver_connection


def _refuse_closed(connection: Any, _record: object, _proxy: object) -> None:
    """Have the pool replace a connection that has ended while it lay there.

    The driver hears of a server that stops or dies. `pool_pre_ping` asks instead, in a transaction of its own: three
    round trips before each of ours, a third of what a small transaction takes.
    """
    if connection.driver_connection.is_closed():
        raise DisconnectionError("the server has closed the connection")


async def wait_for_database(database: Database, timeout_s: float) -> None:
    """Return once PostgreSQL answers and has this build's schema.

    Raises:
        DatabaseAway: it did not answer within `timeout_s` seconds.
        SchemaMismatch: at once; waiting would not help.
    """
    await _patiently(database.require_schema, timeout_s)


async def migrate(url: str, *, role: str = "tieout_app", timeout_s: float = 30) -> tuple[str | None, str]:
    """Bring the database to this build's schema and let `role` work on it; return the versions before and after.

    The login of `url` owns the tables; it needs CREATEROLE only when `role` does not exist yet.

    Raises:
        SchemaMismatch: the database is newer than this build.
        DatabaseAway: it did not answer within `timeout_s` seconds.
        UsageError: the login may not do what is needed.
    """
    name = _role_name(role)
    database = Database(url, role=None, pool_size=1)

    def work(connection: Connection) -> tuple[str | None, str]:
        versions = upgrade(connection)
        _grant(connection, name)
        return versions

    async def once() -> tuple[str | None, str]:
        async with database.transaction(EVERY_ORG) as connection:
            return await connection.run_sync(work)

    try:
        return await _patiently(once, timeout_s)
    except DBAPIError as error:
        if getattr(_cause(error), "sqlstate", None) != "42501":
            raise
        raise UsageError(
            f"the login of TIEOUT_DATABASE_URL may not migrate {shown(database.url)}: {_reason(error)}; "
            f"use the owner of the database, and let an administrator run CREATE ROLE {name} NOLOGIN"
        ) from None
    finally:
        await database.close()


def _grant(connection: Connection, role: str) -> None:
    found = connection.execute(text("SELECT 1 FROM pg_roles WHERE rolname = :role"), {"role": role}).first()
    if found is None:
        connection.execute(text(f"CREATE ROLE {role} NOLOGIN"))
    member = text("SELECT pg_has_role(session_user, :role, 'SET')")
    if not connection.execute(member, {"role": role}).scalar_one():
        connection.execute(text(f"GRANT {role} TO SESSION_USER"))
    database = connection.execute(text("SELECT quote_ident(current_database())")).scalar_one()
    connection.execute(text(f"GRANT TEMPORARY ON DATABASE {database} TO {role}"))
    schema = connection.execute(text("SELECT quote_ident(current_schema())")).scalar_one()
    connection.execute(text(f"GRANT USAGE ON SCHEMA {schema} TO {role}"))
    connection.execute(text(f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {role}"))
    for table in metadata.sorted_tables:
        rights = "INSERT" if table in APPEND_ONLY_TABLES else "INSERT, UPDATE, DELETE"
        connection.execute(text(f"GRANT {rights} ON {table.name} TO {role}"))


def _role_name(role: str) -> str:
    if not _ROLE_NAME.fullmatch(role):
        raise UsageError(f"{role!r} is no role name: use lower case letters, digits and _, at most 63")
    return role


async def _patiently(work: Callable[[], Awaitable[_T]], timeout_s: float) -> _T:
    end = time.monotonic() + timeout_s
    pause_s = RETRY_PAUSE_S_MIN
    while True:
        try:
            return await work()
        except DatabaseAway as error:
            if time.monotonic() + pause_s > end:
                raise DatabaseAway(
                    f"{error}; tried for {timeout_s:g} s: start it, or set TIEOUT_DATABASE_URL to where it runs"
                ) from error
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, RETRY_PAUSE_S_MAX)


def _reason(error: BaseException) -> str:
    cause = _cause(error) if isinstance(error, DBAPIError) else error
    text_ = str(cause).strip()
    return text_.splitlines()[0] if text_ else type(cause).__name__
