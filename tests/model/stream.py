"""A stream of one rule, and the two ways in which the Law lets it arrive otherwise."""

from dataclasses import dataclass, replace

from hypothesis import strategies as st

from tests.model.match_model import Event, Rule


@dataclass(frozen=True)
class Stream:
    """What `tests.model.kinds.run(rule, events, until)` takes."""

    rule: Rule
    events: list[Event]
    """In arrival order; `received_at` never falls."""
    until: str


@st.composite
def rearranged(draw: st.DrawFn, stream: Stream) -> Stream:
    """The same events in another order of arrival within the same slots."""
    slots = [event["received_at"] for event in stream.events]
    shuffled = draw(st.permutations(stream.events))
    events = [event | {"received_at": slot} for event, slot in zip(shuffled, slots, strict=True)]
    return replace(stream, events=events)


@st.composite
def repeated(draw: st.DrawFn, stream: Stream) -> Stream:
    """Some events delivered again, right behind any event that came later or with themselves."""
    events = list(stream.events)
    for _ in range(draw(st.integers(1, 4))):
        first = draw(st.integers(0, len(events) - 1))
        behind = draw(st.integers(first, len(events) - 1))
        events.insert(behind + 1, events[first] | {"received_at": events[behind]["received_at"]})
    return replace(stream, events=events)


@st.composite
def interleaved(draw: st.DrawFn, stream: Stream) -> Stream:
    """Another order of arrival in which the events of each account keep theirs."""
    slots = [event["received_at"] for event in stream.events]
    places = draw(st.permutations([account_of(event) for event in stream.events]))
    waiting = {account: [one for one in stream.events if account_of(one) == account] for account in places}
    events = [waiting[place].pop(0) | {"received_at": slot} for place, slot in zip(places, slots, strict=True)]
    return replace(stream, events=events)


def account_of(event: Event) -> tuple[str, str | None]:
    return event["org"], event.get("account")
