"""What the recovery drill compares: every table has its place, and any difference of a row is named."""

from services.alerts.adapters.tables import APPEND_ONLY_TABLES, metadata
from tieout.drill.tables import (
    DELIVERY_TABLES,
    DERIVED_TABLES,
    ONLY_ROWS,
    OWN_TIMES,
    PASSING_TABLES,
    PEOPLES_COLUMNS,
    TOPIC_TABLES,
    backup_only,
    compare,
)


def test_every_table_is_from_a_topic_made_again_passing_or_in_the_backup_only() -> None:
    """A new table is in the backup's until somebody says that a topic holds it: nothing is forgotten in silence."""
    groups = [set(TOPIC_TABLES), set(DERIVED_TABLES), set(PASSING_TABLES), set(DELIVERY_TABLES), set(backup_only())]

    assert set().union(*groups) == set(metadata.tables)
    assert sum(map(len, groups)) == len(metadata.tables)


def test_what_people_did_and_who_may_call_is_in_the_backup_only() -> None:
    assert {"action_log", "adjustments", "api_keys", "orgs", "runs", "webhook_endpoints"} <= set(backup_only())
    written_by_the_sink = {"discrepancy_revisions", "item_revisions"}
    assert {table.name for table in APPEND_ONLY_TABLES} - written_by_the_sink <= set(backup_only())


def test_columns_that_are_left_out_exist() -> None:
    for named in (OWN_TIMES, PEOPLES_COLUMNS):
        for table, columns in named.items():
            assert columns <= set(metadata.tables[table].columns.keys())
    assert set(ONLY_ROWS) <= set(metadata.tables)


def test_missing_extra_and_altered_rows_are_counted_and_named() -> None:
    before = {"items": {"a": "1", "b": "2", "c": "3"}, "checks": {"x": "1"}}
    after = {"items": {"a": "1", "b": "other", "d": "4"}, "checks": {"x": "1"}}

    items, checks = compare(before, after)

    assert (items.before, items.missing, items.extra, items.altered, items.identical) == (3, 1, 1, 1, False)
    assert items.examples == ("missing c", "extra d", "altered b")
    assert checks.identical
