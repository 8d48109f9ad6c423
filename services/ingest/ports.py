"""What ingest's use cases need from outside."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from services.ingest.domain.balances import Reading


class Appended(NamedTuple):
    """A record for the inbox."""

    key: bytes
    value: bytes


class InboxAway(Exception):
    """Kafka has not acknowledged: answer 503 and let the producer try again (a repeat is one event)."""


class Inbox(Protocol):
    """Where everything goes first."""

    async def append(self, records: Sequence[Appended]) -> None:
        """Append all `records` and return once every one of them is acknowledged, in one round.

        Raises:
            InboxAway: at least one is not acknowledged in time; some may be.
        """
        ...


class SigningConfig(NamedTuple):
    """How the webhooks of one (org, source) are signed."""

    provider: str | None
    """Where the directory's entry names none."""
    secrets: tuple[str, ...]
    """Every one that is valid now: two during a rotation."""
    payment_id_field: str | None = None
    """Metadata field of the producer's own payment id, where it differs from the default."""


class Secrets(Protocol):
    """Signing secrets; never in Kafka, PostgreSQL or a log."""

    def of(self, org: str, source: str) -> SigningConfig | None:
        """Return the configuration of a source, None where nothing is configured."""
        ...


class BalanceSource(Protocol):
    """A provider whose accounts hold money."""

    async def read(self) -> Reading:
        """Read what every account holds, all of them or none.

        Raises:
            ReadFailed: nothing may be said about any balance.
        """
        ...


class CertificateAway(Exception):
    """A certificate cannot be fetched now: answer 503 and let the provider try again."""


class Certificates(Protocol):
    """Where signing certificates come from."""

    async def pem(self, url: str) -> bytes:
        """Return the certificate at `url`, an address that was checked.

        Raises:
            CertificateAway: it cannot be fetched now.
        """
        ...
