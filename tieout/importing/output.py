"""Where the events of an import go: to ingest in batches, or into a file."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Protocol, Self

from shared.errors import DependencyAway, UsageError
from tieout.importing.reading import Ready
from tieout.ingest_api import IngestApi
from tieout.offline.lines import Complain

BATCH_ROWS = 1000
BATCH_BYTES = 1_000_000
"""Of one request: a quarter of what ingest takes by default, so that a repeat after a time-out costs little."""


class Output(Protocol):
    """Takes events one by one; what was taken is only sure to be there after `close`."""

    refused: int
    """Events that were taken and then refused."""

    def take(self, ready: Ready) -> None:
        """Take one event."""

    def close(self) -> None:
        """Bring the last ones out."""

    def abandon(self) -> None:
        """Leave it: nothing more is brought out."""


class ToIngest:
    """Sends events in batches."""

    def __init__(self, api: IngestApi, complain: Complain, sent: Callable[[int], None]) -> None:
        self.refused = 0
        self._api = api
        self._complain = complain
        self._sent = sent
        self._accepted = 0
        self._batch: list[Ready] = []
        self._bytes = 0

    def take(self, ready: Ready) -> None:
        """Take one event; sends when a batch is full."""
        if self._batch and (len(self._batch) >= BATCH_ROWS or self._bytes + len(ready.json) > BATCH_BYTES):
            self._send()
        self._batch.append(ready)
        self._bytes += len(ready.json) + 1

    def close(self) -> None:
        """Send the last batch."""
        self._send()

    def abandon(self) -> None:
        """Send nothing more."""
        self._batch.clear()

    def _send(self) -> None:
        batch, self._batch, self._bytes = self._batch, [], 0
        if not batch:
            return
        try:
            refused = self._api.post([ready.json for ready in batch])
        except DependencyAway as away:
            raise DependencyAway(
                f"{away}\n{self._accepted:,} events were accepted, up to the row before {batch[0].place}; run the same "
                "command again when ingest is back: what was accepted is not counted twice"
            ) from None
        for row, error in refused:
            self.refused += 1
            self._complain(batch[row].place, f"refused by ingest: {error}")
        self._accepted += len(batch) - len(refused)
        self._sent(self._accepted)


class ToFile:
    """Writes events into a file, a JSON object a line, which is there when it is whole."""

    def __init__(self, path: Path) -> None:
        self.refused = 0
        self._path = path
        self._partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        self._stream: BinaryIO = self._opened()

    def _opened(self) -> BinaryIO:
        try:
            return self._partial.open("wb")
        except OSError as error:
            raise self._unwritable(error) from None

    def take(self, ready: Ready) -> None:
        """Write one event."""
        try:
            self._stream.write(ready.json + b"\n")
        except OSError as error:
            raise self._unwritable(error) from None

    def close(self) -> None:
        """Let the file appear under its name."""
        try:
            self._stream.close()
            self._partial.replace(self._path)
        except OSError as error:
            raise self._unwritable(error) from None

    def abandon(self) -> None:
        """Remove what was written."""
        with contextlib.suppress(OSError):
            self._stream.close()
        self._partial.unlink(missing_ok=True)

    def _unwritable(self, error: OSError) -> UsageError:
        return UsageError(f"{self._path}: cannot be written: {error.strerror}")


class ToPreview:
    """Shows events to whoever looks, and brings them nowhere."""

    refused = 0

    def __init__(self, look: Callable[[Ready], None]) -> None:
        self._look = look

    def take(self, ready: Ready) -> None:
        """Show one event."""
        self._look(ready)

    def close(self) -> None:
        """Nothing to bring out."""

    def abandon(self) -> None:
        """Nothing to leave."""


class Closing:
    """Closes an output when all went well, and abandons it when not."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._output.close()
        else:
            self._output.abandon()
