"""Webhook targets that operators name in a setting: endpoints of every organisation, beside those that people register."""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from services.alerts.domain.address import check_url
from services.alerts.domain.endpoint import ENDPOINTS_MAX, Endpoint, EndpointChange
from services.alerts.domain.signature import SECRET_BYTES, secret_text
from services.alerts.ports.delivery import EndpointStore
from services.alerts.ports.directory import DirectoryStore

SETTING = "RECONCILIATION_ALERT_WEBHOOK_URL"
_MARK = f"from {SETTING}"
_GONE = f"no longer in {SETTING}"


@dataclass(frozen=True, slots=True)
class AlertTargets:
    """Keeps the endpoints of the setting as it says.

    Args:
        urls: what the setting names.
        secret: signs messages to new ones; None: each gets a random one, which `rotate-secret` replaces and shows.
        random_bytes: as `secrets.token_bytes`.
        now: the clock.
    """

    store: EndpointStore
    directory: DirectoryStore
    urls: Sequence[str]
    secret: str | None
    random_bytes: Callable[[int], bytes]
    now: Callable[[], datetime]

    async def apply(self) -> int:
        """Make what is missing in any organisation, disable what is no longer named; return how many changed.

        Raises:
            DependencyAway: asking again makes what is missing then.
        """
        return sum([await self._apply(one.org) for one in await self.directory.orgs()])

    async def _apply(self, org: str) -> int:
        known = {one.id: one for one in await self.store.list(org, None, ENDPOINTS_MAX) if one.description == _MARK}
        wanted = {target_id(org, url): url for url in self.urls}
        changed = 0
        for id_, url in wanted.items():
            changed += await self._want(org, id_, url, known.get(id_))
        for id_ in sorted(set(known) - set(wanted)):
            if known[id_].disabled_at is None:
                await self.store.change(org, id_, EndpointChange(enabled=False, disabled_reason=_GONE))
                changed += 1
        return changed

    async def _want(self, org: str, id_: str, url: str, known: Endpoint | None) -> bool:
        if known is None:
            endpoint = Endpoint(id=id_, org=org, url=url, description=_MARK, created_at=self.now())
            secret = self.secret or secret_text(self.random_bytes(SECRET_BYTES))
            return await self.store.add(endpoint, secret, ENDPOINTS_MAX)
        if known.disabled_reason != _GONE:
            # Disabled by a person or by the receiver's 410: it stays so.
            return False
        await self.store.change(org, id_, EndpointChange(enabled=True))
        return True


def target_id(org: str, url: str) -> str:
    """Return the id of the endpoint: the same in every process, so that two make one."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{SETTING}/{org}/{url}"))


def target_urls(setting: str, *, allow_private: bool) -> list[str]:
    """Read the setting: URLs with commas between.

    Raises:
        UrlRefused: one of them cannot be a target.
    """
    urls = list(dict.fromkeys(url.strip() for url in setting.split(",") if url.strip()))
    for url in urls:
        check_url(url, allow_private=allow_private)
    return urls
