"""CSV of items as bytes, piece by piece: RFC 4180, UTF-8, a header line, CR LF."""

import csv
import io
from collections.abc import AsyncIterator, Sequence

CHUNK_BYTES = 65_536
"""Sent at a time; a row is some hundred bytes."""


async def csv_of(rows: AsyncIterator[Sequence[str]]) -> AsyncIterator[bytes]:
    """Give the rows as CSV, `CHUNK_BYTES` at a time."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    async for row in rows:
        writer.writerow(row)
        if text.tell() >= CHUNK_BYTES:
            yield text.getvalue().encode()
            text.seek(0)
            text.truncate()
    if text.tell():
        yield text.getvalue().encode()
