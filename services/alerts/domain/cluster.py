"""Clusters: open discrepancies of one organisation that most likely have one cause, and the sentence about it.

Every discrepancy has one cause: the most special thing it shares with others (the pattern of a fee, a pair of
currencies, a missing side). Those of one cause that were raised close together are a cluster.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final
from uuid import uuid5

import msgspec

from shared.contracts.discrepancy import Discrepancy
from shared.contracts.near_miss import Cluster
from shared.ids import NAMESPACE, canonical
from shared.likeness import Money, likeness

CLUSTER_SIZE_MIN: Final = 3
"""Two may be chance; `clusters` takes another number from the settings."""
PATTERN_GAP: Final = timedelta(days=7)
"""The same special pattern after a quiet week is another incident."""
BURST_GAP: Final = timedelta(minutes=10)
"""Things that share no more than source and type belong together only in one burst, as after a deploy."""
PATTERN_CHARS_MAX: Final = 200
"""Producers choose statuses; a cause stands in an index, which takes no long text."""
PATTERN_KINDS: Final = frozenset({"fee", "tax", "minor_units", "sign_flipped"})
"""Likenesses that a wrong setting brings about; transposed digits or a cent come one by one."""

_decode = msgspec.json.Decoder(list[str]).decode


class Cause(msgspec.Struct, frozen=True):
    """What a discrepancy shares with others of the same cause."""

    type: str
    rule: str
    source: str
    """Of the record that is wrong, or that has nothing opposite."""
    kind: str
    """What the sentence is about."""
    pattern: str = ""
    turn: str = ""
    """Which way: `more` or `less`."""

    @property
    def name(self) -> str:
        """The cause as one text, equal for equal causes."""
        return canonical([self.type, self.rule, self.source, self.kind, self.pattern, self.turn]).decode()

    @property
    def gap(self) -> timedelta:
        """How far apart two raises of one cluster may be."""
        return BURST_GAP if self.kind in {"amount", "missing", "duplicate", "other"} else PATTERN_GAP


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """A discrepancy of a cause; what has closed still says where its group begins, and holds it together."""

    id: str
    raised_at: datetime
    open: bool
    difference: str = ""
    """With its currency; empty where it has none."""


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Members that were raised close together; a cluster once enough of them are open."""

    members: Sequence[Member]
    cluster: Cluster | None


def named_cause(name: str) -> Cause:
    """Read a cause from its name."""
    return Cause(*_decode(name))


def cause_of(found: Discrepancy) -> Cause:
    """Return the cause of a discrepancy."""
    source = _source(found)
    if found.type == "AmountMismatch":
        kind, pattern = _likeness(found) or ("amount", "")
        return Cause(found.type, found.rule, source, kind, pattern, _turn(found))
    if found.type in {"CurrencyMismatch", "StatusMismatch"}:
        kind = "currency" if found.type == "CurrencyMismatch" else "status"
        pattern = f"{found.actual} instead of {found.expected}"[:PATTERN_CHARS_MAX]
        return Cause(found.type, found.rule, source, kind, pattern)
    if found.type.startswith("Missing"):
        return Cause(found.type, found.rule, source, "missing", found.side or "")
    kind = "duplicate" if found.type == "DuplicateChargeSuspected" else "other"
    return Cause(found.type, found.rule, source, kind)


def _source(found: Discrepancy) -> str:
    """The source of the side that is spoken of; of a missing one, that of the record that is there."""
    side = found.sides.get(found.side or "")
    if side is None:
        side = next((there for there in found.sides.values() if there is not None), None)
    return (side.source if side is not None else None) or ""


def _turn(found: Discrepancy) -> str:
    """Whether there is less money than expected, or more: of money that goes out as of money that comes in."""
    return "less" if abs(Decimal(found.actual or 0)) < abs(Decimal(found.expected or 0)) else "more"


def _likeness(found: Discrepancy) -> tuple[str, str] | None:
    if found.expected is None or found.actual is None:
        return None
    like = likeness(Money(Decimal(found.expected), found.currency), Money(Decimal(found.actual), found.currency))
    return (like.kind, like.pattern) if like is not None and like.kind in PATTERN_KINDS else None


def member_of(found: Discrepancy, *, is_open: bool) -> Member:
    """Return a discrepancy as a member of its cause."""
    difference = f"{found.difference.lstrip('-')} {found.currency or ''}".strip() if found.difference else ""
    return Member(id=found.id, raised_at=found.raised_at, open=is_open, difference=difference)


def groups(
    org: str, cause: Cause, members: Iterable[Member], size_min: int = CLUSTER_SIZE_MIN, began: datetime | None = None
) -> list[Group]:
    """Return the members of one cause in groups of those raised close together, the oldest first.

    A cluster is named by organisation, cause and the first raise of its group, open or not: it keeps its name while
    members come and go. `began` is the first raise of the oldest group where `members` does not reach so far back.
    """
    bursts = _bursts(members, cause.gap)
    begins = [burst[0].raised_at for burst in bursts]
    if began is not None and begins:
        begins[0] = began
    return [
        Group(members=burst, cluster=_cluster(org, cause, at, burst, size_min))
        for at, burst in zip(begins, bursts, strict=True)
    ]


def _bursts(members: Iterable[Member], gap: timedelta) -> list[list[Member]]:
    found: list[list[Member]] = []
    for member in sorted(members, key=lambda one: (one.raised_at, one.id)):
        if found and member.raised_at - found[-1][-1].raised_at <= gap:
            found[-1].append(member)
        else:
            found.append([member])
    return found


def _cluster(org: str, cause: Cause, began: datetime, group: Sequence[Member], size_min: int) -> Cluster | None:
    is_open = [member for member in group if member.open]
    if len(is_open) < size_min:
        return None
    return Cluster(
        id=str(uuid5(NAMESPACE, canonical([org, "cluster", cause.name, began.isoformat()]).decode())),
        sentence=_sentence(cause, is_open),
        size=len(is_open),
        since=is_open[0].raised_at,
    )


_SENTENCES: Final[dict[str, str]] = {
    "fee": "{count} amounts of {source} {since} are {pattern} {way}: fees are probably booked on one side only.",
    "tax": "{count} amounts of {source} {since} are {pattern} tax {way}: one side is probably net, the other gross.",
    "minor_units": "{count} amounts of {source} {since} are {factor} times too {size}: "
    "minor and major units are probably mixed up.",
    "sign_flipped": "{count} amounts of {source} {since} have the sign flipped: its sign is probably read wrongly.",
    "currency": "{count} records of {source} {since} are in {pattern}: probably one cause.",
    "status": "{count} records of {source} {since} are {pattern}: probably a status that is not mapped.",
    "missing": "{count} records of {source} {since} have no {pattern} record: "
    "probably one cause, such as a late feed or a reference that is written differently.",
    "duplicate": "{count} records of {source} {since} are there twice: probably sent again under new names.",
    "amount": "{count} amounts of {source} {since} are {each}{way}: probably one cause.",
    "other": "{count} {type} at {source} {since}: probably one cause.",
}


def _sentence(cause: Cause, members: Sequence[Member]) -> str:
    is_less = cause.turn == "less"
    return _SENTENCES[cause.kind].format(
        count=len(members),
        source=cause.source or cause.rule,
        since=f"since {members[0].raised_at:%Y-%m-%d %H:%M} UTC",
        pattern=cause.pattern,
        factor=cause.pattern.removeprefix("x "),
        way="short" if is_less else "over",
        size="small" if is_less else "large",
        each=_each(members),
        type=cause.type,
    )


def _each(members: Sequence[Member]) -> str:
    """Name the difference where it is the same for all."""
    differences = {member.difference for member in members}
    return f"each {differences.pop()} " if len(differences) == 1 else ""


def clusters(revisions: Iterable[Discrepancy], size_min: int = CLUSTER_SIZE_MIN) -> dict[str, Cluster]:
    """Return the cluster of every open discrepancy that belongs to one, by id.

    What has resolved is of the cause that it had when it was raised: its last evidence is of what put it right.
    """
    last: dict[str, Discrepancy] = {}
    raised: dict[str, Discrepancy] = {}
    for found in revisions:
        last[found.id] = found
        if found.state == "raised":
            raised[found.id] = found
    by_cause: dict[tuple[str, str], list[Member]] = {}
    for found in last.values():
        if not found.shadow:
            member = member_of(found, is_open=found.state == "raised")
            cause = cause_of(raised.get(found.id, found)).name
            by_cause.setdefault((found.org, cause), []).append(member)
    said: dict[str, Cluster] = {}
    for (org, name), members in by_cause.items():
        for group in groups(org, named_cause(name), members, size_min):
            if group.cluster is not None:
                said |= {member.id: group.cluster for member in group.members if member.open}
    return said
