"""Statements for auditors: what `tieout verify` found, as a file that shows whether anyone changed it since.

A statement is JSON; its signature (Ed25519, RFC 8032) is of the canonical bytes of everything else in it: UTF-8, keys
sorted, no spaces. The public key stands in the file for convenience; an auditor checks with a key from elsewhere.
"""

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.errors import UsageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

FORMAT = 1
MAKE_A_KEY = "openssl genpkey -algorithm ed25519 -out key.pem; openssl pkey -in key.pem -pubout -out public.pem"


def canonical(statement: dict[str, Any]) -> bytes:
    """Return the bytes that are signed."""
    unsigned = {name: value for name, value in statement.items() if name != "signature"}
    return json.dumps(unsigned, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def sign(statement: dict[str, Any], key: Path) -> dict[str, Any]:
    """Return the statement with its signature.

    Raises:
        UsageError: the file holds no Ed25519 private key.
    """
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    private = _private(key)
    public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    signature = {
        "algorithm": "Ed25519",
        "public_key": base64.b64encode(public).decode(),
        "value": base64.b64encode(private.sign(canonical(statement))).decode(),
    }
    return {**statement, "signature": signature}


def check(statement: dict[str, Any], key: Path) -> str | None:
    """Return what is wrong with a statement's signature; None: it is as it was signed.

    Raises:
        UsageError: the file holds no Ed25519 public key.
    """
    from cryptography.exceptions import InvalidSignature

    signature = statement.get("signature")
    if not isinstance(signature, dict) or not isinstance(signature.get("value"), str):
        return "it is not signed"
    try:
        value = base64.b64decode(signature["value"], validate=True)
        _public(key).verify(value, canonical(statement))
    except InvalidSignature:
        return "it was changed after it was signed, or another key signed it"
    except ValueError:
        return "its signature is not base64"
    return None


def read(path: Path) -> dict[str, Any]:
    """Read a statement.

    Raises:
        UsageError: the file is none.
    """
    try:
        statement = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError:
        raise UsageError(f"{path}: is not JSON, so no statement") from None
    if not isinstance(statement, dict) or statement.get("statement") != FORMAT:
        raise UsageError(f"{path}: is no statement of `tieout verify` that this build can read")
    return statement


def _private(path: Path) -> "Ed25519PrivateKey":
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(_bytes(path), password=None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError(f"{path}: holds no Ed25519 private key without a passphrase; make one: {MAKE_A_KEY}")
    return key


def _public(path: Path) -> "Ed25519PublicKey":
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(_bytes(path))
    except ValueError:
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise UsageError(f"{path}: holds no Ed25519 public key; the signer makes one: {MAKE_A_KEY}")
    return key


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
