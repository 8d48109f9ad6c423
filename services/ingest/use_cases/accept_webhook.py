"""A provider's webhook: the signature decides, then the raw bytes go into the inbox."""

from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256

from services.ingest.domain.providers import MAPPINGS, delivery_id
from services.ingest.domain.signatures import (
    Refused,
    Verdict,
    standard_key,
    stripe_key,
    verify_standard,
    verify_stripe,
)
from services.ingest.domain.sns import check_origin, read_envelope, topic_key, verify
from services.ingest.ports import Appended, Certificates, Inbox, SigningConfig
from shared.contracts.directory import SourceEntry
from shared.contracts.inbox import WebhookReceived, encode_inbox
from shared.ids import canonical

Headers = Mapping[str, str]
"""With lower case names."""

_KEY_OF: dict[str, Callable[[str], bytes]] = {"stripe": stripe_key, "standard": standard_key, "circle": topic_key}


class NotConfigured(Exception):
    """The source is known, but not how its webhooks are signed: an operator has to act."""


class SignatureRefused(Exception):
    """The request is not believed; nothing of its body is kept."""

    def __init__(self, refused: Refused) -> None:
        super().__init__(refused.detail)
        self.reason = refused.reason


def signing_keys(provider: str, secrets: Sequence[str]) -> list[bytes]:
    """Return the keys of a source's secrets.

    Raises:
        ValueError: a secret has not the form that the provider's are given in.
    """
    return [_KEY_OF[provider](secret) for secret in secrets]


def provider_of(source: SourceEntry, config: SigningConfig | None) -> str:
    """Return the provider whose scheme signs the source's webhooks.

    Raises:
        NotConfigured: no secret, no provider, or one that this build does not know.
    """
    place = f"{source.org}/{source.source}"
    if config is None or not config.secrets:
        raise NotConfigured(f"no signing secret is configured for {place}")
    provider = source.provider or config.provider
    if provider is None:
        raise NotConfigured(f"neither the directory nor the secrets say which provider sends the webhooks of {place}")
    if provider not in MAPPINGS or provider not in _KEY_OF:
        raise NotConfigured(f"{place} names provider {provider!r}; this build knows {', '.join(sorted(MAPPINGS))}")
    return provider


def _verify(provider: str, body: bytes, headers: Headers, keys: Sequence[bytes], now_s: float) -> Verdict:
    if provider == "stripe":
        return verify_stripe(body, headers.get("stripe-signature"), keys, now_s)
    return verify_standard(body, headers, keys, now_s)


async def _verify_sns(body: bytes, topics: Sequence[bytes], now_s: float, certificates: Certificates) -> Verdict:
    try:
        envelope = read_envelope(body)
    except ValueError as error:
        return Refused("malformed", str(error))
    strange = check_origin(envelope, topics)
    if strange is not None:
        return strange
    return verify(body, envelope, await certificates.pem(envelope.signing_cert_url), now_s)


async def accept_webhook(
    source: SourceEntry,
    config: SigningConfig | None,
    headers: Headers,
    body: bytes,
    *,
    now_s: float,
    inbox: Inbox,
    certificates: Certificates | None = None,
) -> str:
    """Verify a delivery and append it; return its id once Kafka has acknowledged it.

    The same delivery again is appended again: what it says is told apart by the events' ids, so a delivery whose
    processing failed is never taken for one that succeeded.

    Raises:
        NotConfigured, SignatureRefused, CertificateAway, InboxAway
    """
    provider = provider_of(source, config)
    assert config is not None, "provider_of refuses a source without configuration"
    try:
        keys = signing_keys(provider, config.secrets)
    except ValueError as error:
        raise NotConfigured(f"a signing secret of {source.org}/{source.source} cannot be used: {error}") from None
    if provider == "circle":
        if certificates is None:
            raise NotConfigured(f"this process cannot fetch the certificates that {source.org}/{source.source} needs")
        verdict = await _verify_sns(body, keys, now_s, certificates)
    else:
        verdict = _verify(provider, body, headers, keys, now_s)
    if isinstance(verdict, Refused):
        raise SignatureRefused(verdict)
    delivery = verdict.delivery_id or delivery_id(body) or sha256(body).hexdigest()
    record = WebhookReceived(
        org=source.org,
        source=source.source,
        provider=provider,
        delivery_id=delivery,
        body=body,
        verdict=f"verified {verdict.scheme}",
    )
    await inbox.append([Appended(canonical([source.org, source.source, delivery]), encode_inbox(record))])
    return delivery
