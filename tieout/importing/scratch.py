"""What an import remembers of rows it has read: on disk, so that memory stays bounded however long the files are."""

import sqlite3
from typing import NamedTuple


class First(NamedTuple):
    """Where an id was seen first, and the digest of what it said."""

    place: str
    digest: bytes


class Scratch:
    """A temporary SQLite database, deleted when it is closed."""

    def __init__(self) -> None:
        # The empty name: a private file that SQLite deletes, of which it keeps some megabytes in memory.
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute(
            "CREATE TABLE rows (file INTEGER, digest BLOB, n INTEGER, PRIMARY KEY (file, digest)) WITHOUT ROWID"
        )
        self._database.execute("CREATE TABLE ids (id TEXT PRIMARY KEY, digest BLOB, place TEXT) WITHOUT ROWID")
        self._files = 0

    def occurrences(self) -> "RowCounts":
        """Return a counter for one more file."""
        self._files += 1
        return RowCounts(self._database, self._files)

    def first(self, id_: str, digest: bytes, place: str) -> First | None:
        """Return where `id_` was seen before; None: here for the first time."""
        found = self._database.execute("SELECT digest, place FROM ids WHERE id = ?", (id_,)).fetchone()
        if found is None:
            self._database.execute("INSERT INTO ids VALUES (?, ?, ?)", (id_, digest, place))
            return None
        return First(found[1], bytes(found[0]))

    def close(self) -> None:
        """Delete everything."""
        self._database.close()


class RowCounts:
    """See `services.ingest.domain.formats.rows.Occurrences`."""

    def __init__(self, database: sqlite3.Connection, file: int) -> None:
        self._database = database
        self._file = file

    def next(self, digest: bytes) -> int:
        """Return how often `digest` has been asked for, this time included."""
        counted = self._database.execute(
            "INSERT INTO rows VALUES (?, ?, 1) ON CONFLICT DO UPDATE SET n = n + 1 RETURNING n", (self._file, digest)
        ).fetchone()
        return int(counted[0])
