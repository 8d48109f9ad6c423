"""What --kafka and --postgres mean."""

import pytest

from shared.errors import UsageError
from tieout.local.choose import choose_kafka, choose_postgres


def test_auto_is_the_real_broker_where_java_and_maven_are():
    choice = choose_kafka("auto", missing=lambda: ())

    assert (choice.kind, choice.loud) == ("jvm", False)


def test_auto_without_java_says_loudly_what_is_lost_and_why():
    choice = choose_kafka("auto", missing=lambda: ("java", "mvn"))

    assert (choice.kind, choice.loud) == ("embedded", True)
    assert "no durability" in choice.line
    assert "java and mvn not installed" in choice.line


def test_a_kind_that_is_asked_for_is_taken():
    assert choose_kafka("jvm", missing=lambda: ("java",)).kind == "jvm"
    assert choose_kafka("embedded", missing=lambda: ()).loud is True


@pytest.mark.parametrize("address", ["localhost:9092", "a.example:9092,b.example:9093"])
def test_addresses_are_remote(address: str):
    choice = choose_kafka(address)

    assert (choice.kind, choice.address) == ("remote", address)


@pytest.mark.parametrize("wrong", ["", "kafka", "host:", "host:port", "a:1,", "http://a:1"])
def test_anything_else_is_refused_with_what_is_allowed(wrong: str):
    with pytest.raises(UsageError, match="give auto, embedded, jvm or HOST:PORT"):
        choose_kafka(wrong)


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+asyncpg"])
def test_any_postgres_scheme_gets_our_driver(scheme: str):
    choice = choose_postgres(f"{scheme}://me:secret@db.example:5432/ledger?ssl=require")

    assert choice.url == "postgresql+asyncpg://me:secret@db.example:5432/ledger?ssl=require"
    assert choice.line == "PostgreSQL at db.example:5432/ledger"


def test_auto_postgres_is_the_wheel():
    assert choose_postgres().kind == "local"


def test_a_refused_url_is_not_repeated():
    with pytest.raises(UsageError) as refused:
        choose_postgres("mysql://me:secret@db/x")

    assert "secret" not in str(refused.value)
