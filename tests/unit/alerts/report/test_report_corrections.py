"""A report tells what was tried automatically in its period, and nothing where nothing was tried."""

from datetime import UTC, date, datetime

from services.alerts.domain.correction import figures
from services.alerts.domain.period import Period
from services.alerts.domain.report import Reading, make_report
from services.alerts.domain.report_markdown import markdown_of

NOVEMBER = Period(date(2026, 11, 1), date(2026, 12, 1), "Europe/Berlin")
AT = datetime(2026, 12, 2, tzinfo=UTC)


def test_the_success_rate_of_the_period_stands_in_json_and_markdown() -> None:
    counts = {("refetch", "resolved"): 1, ("refetch", "still_differs"): 2, ("adjust", "refused"): 1}
    found = figures(counts)  # type: ignore[arg-type]
    report = make_report("acme", NOVEMBER, [], Reading(AT, AT, [], [], corrections=found))
    assert report.corrections == found
    lines = markdown_of(report).splitlines()
    start = lines.index("## Automatic corrections")
    assert lines[start + 4 : start + 6] == [
        "| refetch | 3 | 1 | 2 | 33.33 % | resolved 1, still_differs 2 |",
        "| adjust | 1 | 0 | 1 | 0.00 % | refused 1 |",
    ]


def test_without_attempts_nothing_is_said() -> None:
    report = make_report("acme", NOVEMBER, [], Reading(AT, AT, [], []))
    assert report.corrections == []
    assert "corrections" not in markdown_of(report)
