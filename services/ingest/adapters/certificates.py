"""Amazon SNS' signing certificates, fetched once each."""

from collections import OrderedDict

import aiohttp

from services.ingest.ports import CertificateAway

CERTIFICATES_MAX = 16
"""There is one per region, now and then a new one."""
TIMEOUT_S = 5.0
"""Below the 15 s that SNS waits for an answer."""
PEM_BYTES_MAX = 64 * 1024


class SnsCertificates:
    """Fetches over https, follows no redirect, and keeps what it got; the caller has checked the address."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, bytes] = OrderedDict()

    async def pem(self, url: str) -> bytes:
        """See `ports.Certificates`."""
        if url in self._known:
            self._known.move_to_end(url)
            return self._known[url]
        found = await self._fetch(url)
        self._known[url] = found
        if len(self._known) > CERTIFICATES_MAX:
            self._known.popitem(last=False)
        return found

    async def _fetch(self, url: str) -> bytes:
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S)) as session,
                session.get(url, allow_redirects=False) as response,
            ):
                if response.status != 200:
                    raise CertificateAway(f"the signing certificate cannot be fetched: {response.status} from {url}")
                found = await response.content.read(PEM_BYTES_MAX + 1)
                while len(found) <= PEM_BYTES_MAX and (more := await response.content.read(PEM_BYTES_MAX)):
                    found += more
        except (aiohttp.ClientError, TimeoutError) as error:
            raise CertificateAway(f"the signing certificate cannot be fetched: {type(error).__name__}, {url}") from None
        if len(found) > PEM_BYTES_MAX:
            raise CertificateAway(f"the signing certificate has more than {PEM_BYTES_MAX} bytes: {url}")
        return found
