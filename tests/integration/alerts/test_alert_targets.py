"""Webhook targets of RECONCILIATION_ALERT_WEBHOOK_URL: endpoints of every organisation, through the one delivery."""

import secrets
from datetime import UTC, datetime

import pytest
from pydantic import SecretStr
from sqlalchemy import select, update

from services.alerts.adapters.database import EVERY_ORG
from services.alerts.adapters.delivery.endpoints import PostgresEndpoints
from services.alerts.adapters.directory_store import PostgresDirectory
from services.alerts.adapters.tables import webhook_endpoints
from services.alerts.app import serve
from services.alerts.domain.address import UrlRefused
from services.alerts.domain.signature import secret_text
from services.alerts.settings import AlertsSettings
from services.alerts.use_cases.alert_targets import AlertTargets, target_id, target_urls
from shared.errors import UsageError
from shared.kafka.settings import KafkaSettings
from tests.integration.alerts.test_delivery_process import desk  # noqa: F401 - a fixture
from tests.support.delivery_desk import Desk, found

pytestmark = pytest.mark.postgres
SECRET = secret_text(b"s" * 32)


@pytest.fixture
async def orgs(desk: Desk) -> Desk:  # noqa: F811 - the fixture
    directory = PostgresDirectory(desk.database)
    for org in ("acme", "globex"):
        await directory.put_org(org, "UTC")
    return desk


def targets(desk: Desk, *urls: str, secret: str | None = SECRET) -> AlertTargets:  # noqa: F811 - not the fixture
    return AlertTargets(
        PostgresEndpoints(desk.database),
        PostgresDirectory(desk.database),
        urls,
        secret,
        secrets.token_bytes,
        lambda: datetime.now(UTC),
    )


async def stored(desk: Desk) -> list[tuple[str, str, bool]]:  # noqa: F811 - not the fixture
    one = webhook_endpoints.c
    query = select(one.org, one.url, one.disabled_at.is_(None)).order_by(one.org, one.url)
    async with desk.database.transaction(EVERY_ORG) as connection:
        return [tuple(row) for row in await connection.execute(query)]


async def test_several_targets_are_endpoints_of_every_organisation_made_once(orgs: Desk) -> None:
    a, b = orgs.receiver.url("/a"), orgs.receiver.url("/b")

    assert await targets(orgs, a, b).apply() == 4
    assert await targets(orgs, a, b).apply() == 0

    assert await stored(orgs) == [("acme", a, True), ("acme", b, True), ("globex", a, True), ("globex", b, True)]


async def test_a_discrepancy_reaches_each_of_them_signed_with_the_secret_of_the_setting(orgs: Desk) -> None:
    for path in ("/a", "/b"):
        orgs.receiver.secrets[path] = SECRET
    urls = [orgs.receiver.url(path) for path in ("/a", "/b")]
    await targets(orgs, *urls).apply()
    await orgs.dispatcher()

    for url in urls:
        [message] = await orgs.store(target_id("acme", url), found(1))
        await orgs.reaches(message, "delivered")

    assert [len(orgs.receiver.at(path)) for path in ("/a", "/b")] == [1, 1]


async def test_a_target_that_is_no_longer_named_is_disabled_and_comes_back_when_it_is(orgs: Desk) -> None:
    a, b = orgs.receiver.url("/a"), orgs.receiver.url("/b")
    await targets(orgs, a, b).apply()

    assert await targets(orgs, b).apply() == 2
    assert [row for row in await stored(orgs) if row[0] == "acme"] == [("acme", a, False), ("acme", b, True)]
    assert await targets(orgs, a, b).apply() == 2
    assert all(enabled for *_, enabled in await stored(orgs))


async def test_one_that_answered_410_stays_disabled_and_what_people_registered_is_left_alone(orgs: Desk) -> None:
    a = orgs.receiver.url("/a")
    await targets(orgs, a).apply()
    by_person = await orgs.endpoint("/mine")
    gone = update(webhook_endpoints).where(webhook_endpoints.c.id == target_id("acme", a))
    async with orgs.database.transaction(EVERY_ORG) as connection:
        await connection.execute(gone.values(disabled_at=datetime.now(UTC), disabled_reason="answered 410"))

    assert await targets(orgs, a).apply() == 0
    assert await targets(orgs).apply() == 1

    enabled = {url: one for org, url, one in await stored(orgs) if org == "acme"}
    assert enabled == {a: False, orgs.receiver.url("/mine"): True}, by_person


def test_the_setting_names_urls_with_commas_each_once_and_refuses_what_cannot_be_one() -> None:
    assert target_urls(" https://a.example/x, https://b.example ,,https://a.example/x", allow_private=False) == [
        "https://a.example/x",
        "https://b.example",
    ]
    assert target_urls("", allow_private=False) == []
    with pytest.raises(UrlRefused):
        target_urls("https://a.example,http://b.example", allow_private=False)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"RECONCILIATION_ALERT_WEBHOOK_URL": "ftp://a.example"}, "RECONCILIATION_ALERT_WEBHOOK_URL: url: must begin"),
        (
            {"RECONCILIATION_ALERT_WEBHOOK_SECRET": SecretStr("hunter2")},
            "RECONCILIATION_ALERT_WEBHOOK_SECRET: a signing",
        ),
        ({"RECONCILIATION_DAILY_RUN_TIME": "2 o'clock"}, "RECONCILIATION_DAILY_RUN_TIME: "),
    ],
)
async def test_a_wrong_setting_ends_the_start_and_names_itself(given: dict[str, str], says: str) -> None:
    with pytest.raises(UsageError) as raised:
        await serve(AlertsSettings(http_port=0, **given), KafkaSettings())

    assert says in str(raised.value)
    assert "hunter2" not in str(raised.value)
