"""Signatures of webhooks, checked on the raw bytes that were signed.

Nothing here raises on what a stranger sends: the answer is `Verified` or `Refused`. The signature is compared before
the time is looked at, so only an authentic request is ever told that it is stale.
"""

import base64
import binascii
import hmac
import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Literal, NamedTuple

TOLERANCE_S = 300
"""How far a signed time may lie from now, before or after: both schemes' documentation names five minutes."""
SIGNATURES_MAX = 16
"""Signatures looked at in one header: two secrets during a rotation need two, more is an attempt to keep us busy."""
SECRET_PREFIX = "whsec_"  # noqa: S105 - how secrets begin, none itself
DELIVERY_ID_LENGTH_MAX = 255

RefusalReason = Literal["missing", "malformed", "mismatch", "stale"]

_SECONDS = re.compile(r"[0-9]{1,12}", re.ASCII)


class Verified(NamedTuple):
    """The body was signed with one of our secrets, now."""

    scheme: str
    delivery_id: str | None
    """The sender's id of this delivery where the scheme signs one."""


class Refused(NamedTuple):
    """Why the request is not believed; `detail` says what to look at and holds no secret and no signature."""

    reason: RefusalReason
    detail: str


Verdict = Verified | Refused


def stripe_key(secret: str) -> bytes:
    """Return the signing key of a Stripe endpoint secret: the text itself, `whsec_` included.

    Raises:
        ValueError: it is empty.
    """
    if not secret.strip():
        raise ValueError("the secret is empty")
    return secret.encode()


def standard_key(secret: str) -> bytes:
    """Return the signing key of a Standard Webhooks secret: base64, with or without `whsec_`.

    Raises:
        ValueError: it is empty or not base64.
    """
    text = secret.removeprefix(SECRET_PREFIX).strip()
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("the secret is not base64 (after the prefix whsec_)") from None
    if not key:
        raise ValueError("the secret is empty")
    return key


def verify_stripe(body: bytes, header: str | None, keys: Sequence[bytes], now_s: float) -> Verdict:
    """Check a `Stripe-Signature` header (`t=…,v1=…`, several v1 during a rotation)."""
    if not header:
        return Refused("missing", "the request has no Stripe-Signature header")
    parts = [part.strip().partition("=") for part in header.split(",")]
    times = [value for name, _, value in parts if name == "t"]
    given = [value for name, _, value in parts if name == "v1"]
    if not times or not _SECONDS.fullmatch(times[0]):
        return Refused("malformed", "Stripe-Signature has no time: it must read t=SECONDS,v1=SIGNATURE")
    if not given:
        return Refused("malformed", "Stripe-Signature has no v1 signature: it must read t=SECONDS,v1=SIGNATURE")
    signed = times[0].encode() + b"." + body
    expected = [hmac.new(key, signed, sha256).hexdigest().encode() for key in keys]
    if not _any_equal(expected, given):
        return Refused("mismatch", "no v1 signature fits this body and any secret that is configured for the source")
    return _in_time(times[0], now_s) or Verified("stripe v1", None)


def verify_standard(body: bytes, headers: Mapping[str, str], keys: Sequence[bytes], now_s: float) -> Verdict:
    """Check the headers `webhook-id`, `webhook-timestamp` and `webhook-signature` (lower case names) of Standard Webhooks."""
    names = ("webhook-id", "webhook-timestamp", "webhook-signature")
    absent = [name for name in names if not headers.get(name)]
    if absent:
        return Refused("missing", f"the request has no {' and no '.join(absent)} header")
    delivery, time, signatures = (headers[name] for name in names)
    if len(delivery) > DELIVERY_ID_LENGTH_MAX:
        return Refused("malformed", f"webhook-id is longer than {DELIVERY_ID_LENGTH_MAX} characters")
    if not _SECONDS.fullmatch(time):
        return Refused("malformed", "webhook-timestamp must be whole seconds since 1970")
    versions = [part.partition(",") for part in signatures.split(" ")]
    given = [signature for version, _, signature in versions if version == "v1" and signature]
    if not given:
        return Refused("malformed", "webhook-signature has no v1 signature: it must read v1,BASE64")
    signed = delivery.encode(errors="surrogateescape") + b"." + time.encode() + b"." + body
    expected = [base64.b64encode(hmac.new(key, signed, sha256).digest()) for key in keys]
    if not _any_equal(expected, given):
        return Refused("mismatch", "no v1 signature fits this body and any secret that is configured for the source")
    return _in_time(time, now_s) or Verified("standard v1", delivery)


def _any_equal(expected: Sequence[bytes], given: Sequence[str]) -> bool:
    """Compare every pair in constant time, and all of them: how long it takes tells nothing about which one fits."""
    fits = False
    for signature in given[:SIGNATURES_MAX]:
        raw = signature.encode(errors="surrogateescape")
        for wanted in expected:
            fits |= hmac.compare_digest(wanted, raw)
    return fits


def _in_time(seconds: str, now_s: float) -> Refused | None:
    age_s = now_s - int(seconds)
    if abs(age_s) <= TOLERANCE_S:
        return None
    where = f"{age_s:.0f} s old" if age_s > 0 else f"{-age_s:.0f} s in the future"
    return Refused(
        "stale", f"the signature is {where}, {TOLERANCE_S} s are allowed; check both clocks, or send it again"
    )
