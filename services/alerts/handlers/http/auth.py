"""Who calls: `Authorization: Bearer tk_<id>_<secret>`, checked against the stored SHA-256 in constant time."""

import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from services.alerts.handlers.http.problem import Problem
from services.alerts.ports.directory import DirectoryStore
from services.alerts.use_cases.keys import key_sha256
from shared.contracts.directory import Role

_bearer = HTTPBearer(auto_error=False, description="An API key, as `tieout keys create` showed it.")
_NO_KEY_SHA256 = "0" * 64


@dataclass(frozen=True, slots=True)
class Caller:
    """The key that a request came with, and so its organisation and rights."""

    org: str
    key_id: str
    name: str
    role: Role

    @property
    def actor(self) -> str:
        """How the action log names it."""
        return f"{self.name} (tk_{self.key_id})"


async def _caller(request: Request, given: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]) -> Caller:
    return await caller_of(request.app.state.directory, None if given is None else given.credentials)


async def caller_of(directory: DirectoryStore, credentials: str | None) -> Caller:
    """Return who sent an API key.

    Raises:
        Problem: 401, it is missing, unknown or revoked.
    """
    if credentials is None:
        raise _unauthorized("send an API key: Authorization: Bearer tk_…")
    prefix, _, rest = credentials.partition("_")
    key_id, _, _secret = rest.partition("_")
    stored = await directory.find_key(key_id) if prefix == "tk" and key_id.isascii() and key_id.isalnum() else None
    # Compared even where there is no such key, so that the time tells nothing about which ids exist.
    same = hmac.compare_digest(key_sha256(credentials), stored.sha256 if stored else _NO_KEY_SHA256)
    if stored is None or not same or stored.revoked_at is not None:
        raise _unauthorized("this API key is unknown or revoked")
    return Caller(org=stored.org, key_id=stored.id, name=stored.name, role=stored.role)


def _unauthorized(detail: str) -> Problem:
    return Problem(401, "unauthorized", detail, headers={"WWW-Authenticate": 'Bearer realm="tieout"'})


def requires(*roles: Role) -> Callable[[Caller], Awaitable[Caller]]:
    """Return the dependency that lets only keys of `roles` in: `caller: Annotated[Caller, Depends(requires("owner"))]`."""

    async def allowed(caller: Annotated[Caller, Depends(_caller)]) -> Caller:
        if caller.role not in roles:
            raise Problem(
                403,
                "forbidden",
                f"this needs a key with the role {' or '.join(roles)}; yours is {caller.role}",
                role=caller.role,
            )
        return caller

    return allowed


Manager = Annotated[Caller, Depends(requires("owner", "manager"))]
"""People who triage: owners and managers."""
Reader = Annotated[Caller, Depends(requires("owner", "manager", "viewer"))]
"""Anyone who may look."""
Owner = Annotated[Caller, Depends(requires("owner"))]
"""Who may give keys away."""
