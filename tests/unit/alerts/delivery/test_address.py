"""Webhooks go to public addresses only, however the address is written."""

import pytest

from services.alerts.domain.address import UrlRefused, check_url, refused_address


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "100.100.100.200",
        "169.254.169.254", "168.63.129.16", "192.0.0.192", "198.18.0.1", "224.0.0.1", "255.255.255.255", "240.0.0.1",
        "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1", "fec0::1", "2001:db8::1",
        "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::1", "not an address",
    ],
)  # fmt: skip
def test_refused(address: str) -> None:
    assert refused_address(address)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "93.184.215.14", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_public_addresses_are_taken(address: str) -> None:
    assert refused_address(address) is None


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/hook", "ftp://example.com", "https://", "https:///path", "https://user:pw@example.com/",
        "https://127.0.0.1/", "https://[::1]/", "https://[::ffff:10.0.0.1]/", "https://169.254.169.254/latest",
        "https://example.com:99999/", "https://example.com/#part", "https://exa mple.com/", "https://example.com/\n",
        "https://example.com/" + "a" * 2048, "not a url", "", "javascript:alert(1)",
    ],
)  # fmt: skip
def test_refused_urls(url: str) -> None:
    with pytest.raises(UrlRefused):
        check_url(url, allow_private=False)


def test_taken_urls() -> None:
    check_url("https://example.com/hook?tenant=1", allow_private=False)
    check_url("https://localhost:8443/", allow_private=False)  # a name: checked when it is connected
    check_url("http://127.0.0.1:8080/hook", allow_private=True)


def test_a_password_in_a_url_is_not_repeated() -> None:
    with pytest.raises(UrlRefused) as refused:
        check_url("https://user:hunter2@example.com/", allow_private=True)
    assert "hunter2" not in str(refused.value)
