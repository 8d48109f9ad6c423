"""Alerts that cannot start says why."""

import pytest

from services.alerts.adapters.database import migrate
from services.alerts.app import serve
from services.alerts.settings import AlertsSettings
from shared.errors import UsageError
from shared.kafka.settings import KafkaSettings

pytestmark = [pytest.mark.kafka, pytest.mark.postgres]


async def test_without_topics_the_process_ends_and_names_them(kafka_settings: KafkaSettings, database_url: str):
    """It would wait for ever, and say nothing."""
    await migrate(database_url)
    settings = AlertsSettings(database_url=database_url, http_port=0)
    with pytest.raises(BaseExceptionGroup) as raised:
        await serve(settings, kafka_settings)
    found: BaseException | None = raised.value.subgroup(UsageError)
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    assert f"{kafka_settings.topic_prefix}matches" in str(found)
    assert "tieout topics apply" in str(found)
