"""Missing records that are not raised, since the feed they would come from is quiet or just back."""

from services.matcher.domain.feed import Feeds
from services.matcher.domain.finding import Finding
from services.matcher.domain.group import Group
from services.matcher.domain.judge import Verdict
from services.matcher.domain.moment import Moment
from shared.contracts.leg import GroupName, read_group_key
from shared.rules.match_rule import MatchRule

HELD = "held by "
"""Before the source, in `Group.since`: since when a group has been waiting for a feed."""


def hold_back(
    feeds: Feeds, key: bytes, group: Group, rule: MatchRule, name: GroupName, verdict: Verdict, moment: Moment
) -> tuple[Verdict, str | None]:
    """Put off what is missing from a feed that is quiet; return the verdict and the source that it waits for."""
    if not feeds.known:
        return verdict, None
    holder: str | None = None
    findings: list[Finding] = []
    raised = {one.name for one in group.raised or () if one.open}
    for finding in verdict.findings:
        if moment.log_time > finding.gate and finding.name not in raised and _is_missing(finding, rule):
            held = [
                (until, source)
                for source in _sources(rule, finding.side)
                if (until := feeds.held_until(name.org, source, finding.gate, group.armed_at, key, moment.log_time))
            ]
            if held:
                until, holder = max(held)
                findings.append(finding._replace(gate=until))
                continue
        findings.append(finding)
    return (Verdict(findings, verdict.matched), holder) if holder else (verdict, None)


def note_holder(feeds: Feeds, key: bytes, group: Group, name: GroupName, holder: str | None) -> None:
    """Remember in the group, and count, what it waits for; after `revise`, which forgets it."""
    if holder is not None:
        group.since = {**(group.since or {}), HELD + holder: group.armed_at}
    feeds.note(key, name.org, holder)


def restore_holder(feeds: Feeds, key: bytes, group: Group | None) -> None:
    """Count a restored group (None: it was forgotten)."""
    holder = next((name.removeprefix(HELD) for name in (group and group.since) or () if name.startswith(HELD)), None)
    feeds.note(key, read_group_key(key).org if holder else "", holder)


def _is_missing(finding: Finding, rule: MatchRule) -> bool:
    return finding.side >= 0 and finding.type == rule.sides[finding.side].missing_type


def _sources(rule: MatchRule, side: int) -> list[str]:
    """Return the sources of a side, of a sum of sides all of them."""
    return [one.source for place, one in enumerate(rule.sides) if rule.head(place) == side]
