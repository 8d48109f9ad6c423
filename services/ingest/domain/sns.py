"""Amazon SNS messages (docs.aws.amazon.com/sns, "Verifying the signatures of Amazon SNS messages").

The envelope carries its own signature, made with a key whose certificate has to be fetched from an address that the
envelope names. So anybody's address must not do, and anybody's topic neither: SNS signs for all of its customers.
"""

import base64
import binascii
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from services.ingest.domain.signatures import Refused, Verdict, Verified

AGE_MAX_S = 3_600
"""SNS keeps the time of a message over its retries, which take up to an hour by default. A repeat is one event."""
AHEAD_MAX_S = 300
TOPIC = re.compile(r"arn:aws(-[a-z]+)*:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_.-]{1,256}", re.ASCII)
CONFIRMATIONS = ("SubscriptionConfirmation", "UnsubscribeConfirmation")

_HOST = re.compile(r"sns\.[a-z0-9-]{3,30}\.amazonaws\.com(\.cn)?", re.ASCII)
_PATH = re.compile(r"/SimpleNotificationService-[A-Za-z0-9]{8,64}\.pem", re.ASCII)


class Envelope(msgspec.Struct, rename="pascal"):
    """One message; `Message` is text, and JSON only where its publisher writes some."""

    type: Literal["Notification", "SubscriptionConfirmation", "UnsubscribeConfirmation"]
    message_id: str
    topic_arn: str
    message: str
    timestamp: datetime
    signature_version: str
    signature: str
    signing_cert_url: str = msgspec.field(name="SigningCertURL")
    subject: str | None = None
    token: str | None = None
    subscribe_url: str | None = msgspec.field(name="SubscribeURL", default=None)


class _Signed(msgspec.Struct, rename="pascal"):
    """The time as it was written: it is signed as text."""

    timestamp: str


_envelope = msgspec.json.Decoder(Envelope).decode
_signed = msgspec.json.Decoder(_Signed).decode


def read_envelope(body: bytes) -> Envelope:
    """Read a message.

    Raises:
        ValueError: it is none.
    """
    try:
        return _envelope(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"the body is no SNS message: {error}") from None


def unconfirmed(body: bytes) -> str | None:
    """Return the address that confirms a subscription, of a verified message that asks for it."""
    try:
        envelope = read_envelope(body)
    except ValueError:
        return None
    return envelope.subscribe_url if envelope.type == "SubscriptionConfirmation" else None


def topic_key(secret: str) -> bytes:
    """Return the topic that a source's "secret" names: what is configured for SNS is whom to believe.

    Raises:
        ValueError: it is no ARN of a topic.
    """
    if not TOPIC.fullmatch(secret.strip()):
        raise ValueError("for circle it is the ARN of the SNS topic, arn:aws:sns:REGION:ACCOUNT:NAME")
    return secret.strip().encode()


def check_origin(envelope: Envelope, topics: Sequence[bytes]) -> Refused | None:
    """Refuse a topic that is not configured and a certificate that is not Amazon's, before anything is fetched."""
    if envelope.topic_arn.encode(errors="replace") not in topics:
        return Refused("mismatch", "the message comes from an SNS topic that is not configured for the source")
    try:
        address = urlsplit(envelope.signing_cert_url)
        port = address.port
    except ValueError:
        return Refused("malformed", "SigningCertURL is no address")
    plain = address.scheme == "https" and port is None and not (address.username or address.query or address.fragment)
    if not plain or not _HOST.fullmatch(address.netloc) or not _PATH.fullmatch(address.path):
        return Refused(
            "malformed", "SigningCertURL is not an address of Amazon SNS (https://sns.REGION.amazonaws.com/…pem)"
        )
    return None


def verify(body: bytes, envelope: Envelope, certificate: bytes, now_s: float) -> Verdict:
    """Check the signature with the certificate (PEM), then the time."""
    # Heavy, and needed for this one provider.
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.hashes import SHA1, SHA256

    digests: dict[str, SHA1 | SHA256] = {"1": SHA1(), "2": SHA256()}  # noqa: S303 - version 1 is SNS' default
    digest = digests.get(envelope.signature_version)
    if digest is None:
        return Refused("malformed", f"SignatureVersion {envelope.signature_version[:8]!r} is not known; 1 and 2 are")
    try:
        signature = base64.b64decode(envelope.signature, validate=True)
        key = x509.load_pem_x509_certificate(certificate).public_key()
    except (binascii.Error, ValueError):
        return Refused("malformed", "Signature is not base64, or what SigningCertURL gave is no certificate")
    if not isinstance(key, RSAPublicKey):
        return Refused("malformed", "the certificate has no RSA key")
    try:
        key.verify(signature, _text_to_sign(body, envelope), PKCS1v15(), digest)
    except InvalidSignature:
        return Refused("mismatch", "the signature does not fit the message")
    age_s = now_s - envelope.timestamp.timestamp()
    if age_s > AGE_MAX_S or age_s < -AHEAD_MAX_S:
        return Refused("stale", f"the message is {age_s:.0f} s old; {AGE_MAX_S} s are allowed, check this clock")
    return Verified(f"sns v{envelope.signature_version}", envelope.message_id)


def _text_to_sign(body: bytes, envelope: Envelope) -> bytes:
    """Return names and values, a line each, in the alphabetical order of the names; which ones depends on the type."""
    fields = {"Message": envelope.message, "MessageId": envelope.message_id}
    if envelope.type in CONFIRMATIONS:
        fields |= {"SubscribeURL": envelope.subscribe_url or ""}
    elif envelope.subject is not None:
        fields |= {"Subject": envelope.subject}
    fields["Timestamp"] = _signed(body).timestamp
    if envelope.type in CONFIRMATIONS:
        fields["Token"] = envelope.token or ""
    fields |= {"TopicArn": envelope.topic_arn, "Type": envelope.type}
    return "".join(f"{name}\n{value}\n" for name, value in fields.items()).encode()
