"""Own verifiers against the providers' own libraries, and against what strangers send."""

import base64
import time
from datetime import UTC, datetime

import pytest
import standardwebhooks
import stripe
from hypothesis import given
from hypothesis import strategies as st

from services.ingest.domain.signatures import (
    TOLERANCE_S,
    Refused,
    Verified,
    standard_key,
    stripe_key,
    verify_standard,
    verify_stripe,
)

STRIPE_SECRETS = ["whsec_old", "whsec_new"]
STRIPE_KEYS = [stripe_key(secret) for secret in STRIPE_SECRETS]
STANDARD_SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef01234567").decode()
STANDARD_KEYS = [standard_key(STANDARD_SECRET)]
NOW = 1_800_000_000


def stripe_header(body: bytes, secret: str = STRIPE_SECRETS[1], at: int = NOW) -> str:
    return stripe.WebhookSignature.generate_signature_header(body.decode(), secret, at)


def standard_headers(
    body: bytes, at: int = NOW, message: str = "msg_1", secret: str = STANDARD_SECRET
) -> dict[str, str]:
    signature = standardwebhooks.Webhook(secret).sign(message, datetime.fromtimestamp(at, UTC), body.decode())
    return {"webhook-id": message, "webhook-timestamp": str(at), "webhook-signature": signature}


def stripe_accepts(body: bytes, header: str, secret: str) -> bool:
    try:
        return bool(stripe.WebhookSignature.verify_header(body, header, secret, None))
    except stripe.SignatureVerificationError:
        return False


def standard_accepts(body: bytes, headers: dict[str, str]) -> bool:
    try:
        standardwebhooks.Webhook(STANDARD_SECRET).verify(body, headers, json_parse=False)
    except (standardwebhooks.WebhookVerificationError, ValueError):
        return False
    return True


def reason(verdict: Verified | Refused) -> str:
    return verdict.reason if isinstance(verdict, Refused) else "verified"


@given(st.text(max_size=200), st.integers(0, 10**11))
def test_what_stripe_signs_is_verified(text: str, at: int):
    body = text.encode()
    assert verify_stripe(body, stripe_header(body, at=at), STRIPE_KEYS, at) == Verified("stripe v1", None)


@given(st.text(max_size=200), st.sampled_from(["t", "v1", "body", "swap", "cut", "none"]))
def test_stripe_verdicts_are_those_of_its_library(text: str, damage: str):
    """Goal: no header that the library refuses is accepted, and the reverse. Method: damage each part of a good one."""
    body = text.encode()
    header = stripe_header(body)
    time_part, signature = header.split(",")
    header = {
        "t": f"t={NOW + 1},{signature}",
        "v1": f"{time_part},v1={'0' * 64}",
        "body": header,
        "swap": f"{signature},{time_part}",
        "cut": f"{time_part},{signature[:-1]}",
        "none": header,
    }[damage]
    sent = body + b"x" if damage == "body" else body
    ours = any(isinstance(verify_stripe(sent, header, [key], NOW), Verified) for key in STRIPE_KEYS)
    theirs = any(stripe_accepts(sent, header, secret) for secret in STRIPE_SECRETS)
    assert ours is theirs is (damage in {"swap", "none"})


@given(st.text(max_size=200))
def test_what_standard_webhooks_signs_is_verified(text: str):
    body, now = text.encode(), int(time.time())
    headers = standard_headers(body, now)
    assert standard_accepts(body, headers)
    assert verify_standard(body, headers, STANDARD_KEYS, now) == Verified("standard v1", "msg_1")


@pytest.mark.parametrize("damaged", ["webhook-id", "webhook-timestamp", "webhook-signature", "body"])
def test_standard_verdicts_are_those_of_its_library(damaged: str):
    now = int(time.time())
    body, headers = b'{"a": 1}', standard_headers(b'{"a": 1}', now)
    if damaged == "body":
        body += b" "
    elif damaged == "webhook-timestamp":
        headers[damaged] = str(now + 1)
    else:
        headers[damaged] = headers[damaged][:-2] + "A="
    assert not standard_accepts(body, headers)
    assert isinstance(verify_standard(body, headers, STANDARD_KEYS, now), Refused)


@pytest.mark.parametrize(
    ("shift_s", "expected"), [(-301, "stale"), (-300, "verified"), (0, "verified"), (300, "verified"), (301, "stale")]
)
def test_time_is_tolerated_both_ways_and_no_further(shift_s: int, expected: str):
    body = b"{}"
    assert reason(verify_stripe(body, stripe_header(body, at=NOW + shift_s), STRIPE_KEYS, NOW)) == expected
    assert reason(verify_standard(body, standard_headers(body, NOW + shift_s), STANDARD_KEYS, NOW)) == expected
    assert TOLERANCE_S == 300


def test_both_secrets_of_a_rotation_are_valid_and_a_third_is_not():
    body = b"{}"
    verdicts = [
        reason(verify_stripe(body, stripe_header(body, secret), STRIPE_KEYS, NOW))
        for secret in (*STRIPE_SECRETS, "whsec_other")
    ]
    assert verdicts == ["verified", "verified", "mismatch"]
    several = stripe_header(body, "whsec_other") + "," + stripe_header(body).split(",")[1]
    assert reason(verify_stripe(body, several, STRIPE_KEYS, NOW)) == "verified"


def test_a_wrong_signature_that_is_stale_too_is_a_mismatch():
    """A stranger learns nothing about our clock."""
    assert reason(verify_stripe(b"{}", f"t=1,v1={'0' * 64}", STRIPE_KEYS, NOW)) == "mismatch"


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        ",",
        "t=",
        "t=1",
        "v1=aa",
        "t=x,v1=aa",
        "t=1=2,v1=",
        "t=-1,v1=aa",
        "t=\u0661,v1=aa",
        "t=1e3,v1=aa",
        "\udcff=1",
        "t=" + "9" * 400 + ",v1=a",
    ],
)
def test_a_malformed_stripe_header_is_refused_and_never_raises(header: str | None):
    assert reason(verify_stripe(b"{}", header, STRIPE_KEYS, NOW)) in {"missing", "malformed"}


@given(
    st.one_of(st.none(), st.text()),
    st.dictionaries(st.sampled_from(["webhook-id", "webhook-timestamp", "webhook-signature"]), st.text()),
    st.binary(),
)
def test_no_header_ever_raises_or_is_believed(header: str | None, headers: dict[str, str], body: bytes):
    assert isinstance(verify_stripe(body, header, STRIPE_KEYS, NOW), Refused)
    assert isinstance(verify_standard(body, headers, STANDARD_KEYS, NOW), Refused)


def test_a_body_that_is_no_text_is_verified_by_its_bytes():
    import hmac
    from hashlib import sha256

    body = b"\xff\xfe\x00"
    signature = hmac.new(STRIPE_KEYS[0], b"%d." % NOW + body, sha256).hexdigest()
    assert reason(verify_stripe(body, f"t={NOW},v1={signature}", STRIPE_KEYS, NOW)) == "verified"


def test_without_a_secret_nothing_is_believed():
    body = b"{}"
    assert reason(verify_stripe(body, stripe_header(body), [], NOW)) == "mismatch"
    assert reason(verify_standard(body, standard_headers(body), [], NOW)) == "mismatch"


def test_other_versions_of_a_signature_do_not_count():
    body = b"{}"
    headers = standard_headers(body)
    headers["webhook-signature"] = headers["webhook-signature"].replace("v1,", "v1a,")
    assert reason(verify_standard(body, headers, STANDARD_KEYS, NOW)) == "malformed"
    assert reason(verify_stripe(body, stripe_header(body).replace("v1=", "v0="), STRIPE_KEYS, NOW)) == "malformed"


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_not base64!", "   "])
def test_a_secret_of_the_wrong_form_is_told(secret: str):
    with pytest.raises(ValueError, match="secret"):
        standard_key(secret)
    if not secret.strip():
        with pytest.raises(ValueError, match="empty"):
            stripe_key(secret)
