"""Where webhooks may go: no address that only this network can reach, or that a cloud answers secrets on.

A name is checked when the socket is made, against the address it resolved to then; checking the name earlier would let
its owner change the answer in between.
"""

import ipaddress
from urllib.parse import SplitResult, urlsplit

URL_LENGTH_MAX = 2048
"""What proxies and logs take without cutting."""

_PLATFORM: dict[ipaddress.IPv4Address | ipaddress.IPv6Address, str] = {
    ipaddress.IPv4Address("168.63.129.16"): "Azure's platform address",
}
"""Public by number, but answered by the cloud's host."""
_RESERVED = tuple(
    ipaddress.ip_network(network)
    for network in ("192.0.0.0/24", "192.88.99.0/24", "64:ff9b:1::/48", "100::/64", "3fff::/20", "5f00::/16")
)
"""Special by IANA's registries; which of them Python's own tables hold depends on its version."""
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class UrlRefused(ValueError):
    """The URL cannot be an endpoint; the message says what to write instead."""


class AddressRefused(OSError):
    """The address that a name resolved to is not one that webhooks may go to."""


def check_url(url: str, *, allow_private: bool) -> None:
    """Check an endpoint's URL as far as its text tells.

    Raises:
        UrlRefused: not https (unless private addresses are allowed), with credentials, without a host, or an address
            that is refused.
    """
    parts = _split(url)
    if parts.scheme != "https" and not (allow_private and parts.scheme == "http"):
        raise UrlRefused("url: must begin with https://, so that nobody on the way reads or changes the message")
    if parts.username is not None or parts.password is not None:
        raise UrlRefused("url: must not hold a user or password; receivers verify the signature instead")
    if not parts.hostname:
        raise UrlRefused("url: has no host")
    if parts.fragment:
        raise UrlRefused("url: must not have a fragment (#…), it is never sent")
    reason = None if allow_private else refused_host(parts.hostname)
    if reason:
        raise UrlRefused(f"url: {reason}; webhooks go to public addresses only")


def _split(url: str) -> SplitResult:
    if len(url) > URL_LENGTH_MAX:
        raise UrlRefused(f"url: longer than {URL_LENGTH_MAX} characters")
    if any(character.isspace() or not character.isprintable() for character in url):
        raise UrlRefused("url: holds a space or a control character")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise UrlRefused(f"url: {error}") from None
    return parts


def refused_host(host: str) -> str | None:
    """Return why a host written as an address is refused; None for a name, which is checked when it is connected."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return None
    return refused_address(host)


def refused_address(address: str) -> str | None:
    """Return why webhooks do not go to `address` (text of an IPv4 or IPv6 address), None when they may."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return f"{address!r} is no IP address"
    for inner in _meant(ip):
        kind = _kind(inner)
        if kind:
            return f"{address} is {kind}"
    return None


def _meant(
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """Return the address and every IPv4 address that travels inside it."""
    if isinstance(ip, ipaddress.IPv4Address):
        return [ip]
    if ip.ipv4_mapped is not None:
        return [ip.ipv4_mapped]
    inner: list[ipaddress.IPv4Address | ipaddress.IPv6Address] = []
    if ip.sixtofour is not None:
        inner.append(ip.sixtofour)
    if ip.teredo is not None:
        inner.extend(ip.teredo)
    if ip in _NAT64:
        return [ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF)]
    return [ip, *inner]


def _kind(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str | None:
    kinds = (
        (ip.is_loopback, "a loopback address"),
        (ip.is_link_local, "a link-local address (cloud metadata is there)"),
        (ip.is_multicast, "a multicast address"),
        (ip.is_unspecified, "the unspecified address"),
        (isinstance(ip, ipaddress.IPv6Address) and ip.is_site_local, "a site-local address"),
        (not ip.is_global or any(ip in network for network in _RESERVED), "a private or reserved address"),
    )
    return _PLATFORM.get(ip) or next((kind for applies, kind in kinds if applies), None)
