"""Signatures of outgoing webhooks, as Standard Webhooks defines them (symmetric, `v1`)."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence

PREFIX = "whsec_"
SECRET_BYTES = 32
"""Length of the secrets made here; as long as the hash that uses them."""
SECRET_BYTES_MIN = 24
SECRET_BYTES_MAX = 64


class SecretInvalid(ValueError):
    """The text is no signing secret; the message never repeats it."""


def secret_text(key: bytes) -> str:
    """Write a key the way people and libraries exchange it: `whsec_` and base64."""
    return PREFIX + base64.b64encode(key).decode()


def secret_key(text: str) -> bytes:
    """Read what `secret_text` wrote.

    Raises:
        SecretInvalid: without `whsec_`, not base64, or of another length than 24 to 64 bytes.
    """
    if not text.startswith(PREFIX):
        raise SecretInvalid(f"a signing secret begins with {PREFIX}")
    try:
        key = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise SecretInvalid(f"a signing secret is base64 after {PREFIX}") from None
    if not SECRET_BYTES_MIN <= len(key) <= SECRET_BYTES_MAX:
        raise SecretInvalid(f"a signing secret has {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} bytes, this has {len(key)}")
    return key


def signed_headers(secrets: Sequence[str], message_id: str, timestamp_s: int, body: bytes) -> dict[str, str]:
    """Return the three headers; one signature per secret, so that receivers can change over during a rotation."""
    assert secrets, "a message is never sent unsigned"
    content = f"{message_id}.{timestamp_s}.".encode() + body
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": " ".join(_signature(secret, content) for secret in secrets),
    }


def _signature(secret: str, content: bytes) -> str:
    digest = hmac.new(secret_key(secret), content, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()
