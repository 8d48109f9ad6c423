"""Reading ahead changes nothing: whatever stands in the files, the core that sees them all says the same, in the same order."""

import json
import multiprocessing
import os
import tempfile
import threading
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.errors import UsageError
from shared.rules.load import load_rules, validate_rules
from shared.rules.model import Rule
from tests.support.cases import Case, has_placeholder, load_match_cases
from tieout.offline import ahead, columns, lines, readers
from tieout.offline import replay as replaying

NEVER = 1 << 62
START = datetime(2026, 3, 6, 22, tzinfo=UTC)
"""A Friday evening: business days have a weekend to skip."""
UNTIL = START + timedelta(days=4)

Packs = dict[str, list[Rule]]


def sides(**more: Any) -> dict[str, Any]:
    return {
        "internal": {"source": "ledger", "type": ["payment.*"], **more},
        "provider": {"source": "stripe", "type": ["payment.*", "charge.made"]},
    }


def rule(**more: Any) -> dict[str, Any]:
    keyed = {
        "kind": "match",
        "name": "test.payments",
        "sides": sides(),
        "key": "refs.p",
        "deadline": "2h",
        "keep": "1h",
    }
    return {**keyed, **more}


STATUS = {
    "amount": {},
    "currency": {},
    "status": {"map": {"provider": {"paid": "succeeded"}, "internal": {"new": "paid"}}},
}
RULE_SETS: dict[str, list[dict[str, Any]]] = {
    "plain": [rule()],
    "statuses and severities": [rule(compare=STATUS, settle="10m", deadline={"internal": "1h", "provider": "3h"})],
    "two fields, business days": [rule(key=["refs.p", "account"], deadline="1bd")],
    "amounts alone": [rule(compare={"amount": {"tolerance": "1.00"}}, duplicates=[])],
    "own list of live statuses": [rule(sides=sides(live=["succeeded", "paid"]), expire="3h")],
    "a side's sign": [rule(sides=sides(sign=-1))],
    "by record": [rule(key="record")],
    "two rules on one event": [rule(), rule(name="test.again", key="refs.q", shadow=True)],
    "two rules side by side": [
        rule(),
        rule(name="test.refunds", sides=json.loads(json.dumps(sides()).replace("payment", "refund")), key="refs.q"),
    ],
    "one source on both sides": [
        rule(
            sides={
                "internal": {"source": "ledger", "type": ["payment.*"]},
                "provider": {"source": "ledger", "type": ["charge.made"]},
            }
        ),
        rule(name="test.other"),
    ],
    "suspects under other keys": [rule(duplicates={"same": ["account", "amount", "currency"], "within": "10m"})],
    "sums beside pairs": [
        rule(),
        rule(
            name="test.sums",
            cardinality="many_to_many",
            sides=json.loads(json.dumps(sides()).replace("payment", "refund")),
            key="refs.p",
        ),
    ],
    "a feed": [rule(), {"kind": "feed", "name": "test.feed", "source": "stripe", "silent_after": "30m"}],
}


def packs_of(rules: list[dict[str, Any]]) -> Packs:
    return {"test": list(validate_rules({"version": 1, "pack": "test", "rules": rules}).rules)}


def said(
    paths: list[Path], packs: Packs, bytes_min: int, until: datetime | None = UNTIL, *, compiled: bool = True
) -> tuple[Any, int | None]:
    """Everything that a replay says, and how many events it settled ahead."""
    told: list[str] = []
    done = replaying.replay(
        paths,
        packs,
        org="acme",
        until=until,
        complain=lambda place, what: told.append(f"{place}: {what}"),
        items=False,
        ahead_bytes_min=bytes_min,
        compiled=compiled,
    )
    engine = done.engine
    results = [msgspec.json.encode(one) for one in (engine.revisions, engine.checks, engine.dead_letters)]
    last = [one.id for one in engine.last_revisions()]
    at_end = (done.events, done.complaints, engine.offset, engine.log_time, engine.not_reconciled)
    return (told, *results, last, at_end), done.settled_ahead


def both(paths: list[Path], packs: Packs, until: datetime | None = UNTIL, *, compiled: bool = True) -> int | None:
    """Hold the two ways together; return how many events were settled ahead."""
    reference, none = said(paths, packs, NEVER, until)
    found, settled = said(paths, packs, 0, until, compiled=compiled)
    assert none is None
    for one, other in zip(found, reference, strict=True):
        assert one == other
    return settled


# ---- files with every kind of trouble

AMOUNTS = ["10.00", "10.00", "10.00", "10.01", "10", "10.0", "-10.00", "0.00", "1" * 30, None, "1e3", ""]
NAMES = [None, "ref-1", "ref-2", "réf\u20281", " ", "", "x" * 300]
TYPES = ["payment.made"] * 6 + ["payment.other", "charge.made", "refund.made", "adjustment.made", "other.kind", "BAD"]
BROKEN = [b"", b"  ", b"{broken", b"[]", b"null", b'{"source":"ledger"}', b"\xff", b"\x0b", b"\r", b'"}', b"{}{}"]


@st.composite
def events(draw: st.DrawFn) -> dict[str, Any]:
    """An event on one of a few keys; most are plain, and any of them may be odd in any way."""
    number = draw(st.integers(0, 4))
    source = draw(st.sampled_from(["ledger", "stripe"]))
    minute = draw(st.integers(0, 400))
    event: dict[str, Any] = {
        "source": source,
        "type": "payment.made",
        "id": draw(st.sampled_from([f"{source}-{number}"] * 6 + ["same", f"{minute}"])),
        "occurred_at": (START + timedelta(minutes=minute)).isoformat(),
        "amount": "10.00",
        "currency": "EUR",
        "status": "succeeded",
        "account": "a",
        "refs": {"p": draw(st.sampled_from([f"k{number}", f"p{number}"])), "q": f"k{number % 2}"},
    }
    odd: dict[str, st.SearchStrategy[Any]] = {
        "amount": st.sampled_from(AMOUNTS),
        "currency": st.sampled_from(["USD", None, "QQQ", "eur", "EURO"]),
        "status": st.sampled_from(["paid", "new", "failed", "requires_action", "", None, "x"]),
        "type": st.sampled_from(TYPES),
        "account": st.sampled_from(["b", " ", None]),
        "record": st.sampled_from(["r1", f"p{number}", f"{source}-{number}"]),
        "supersedes": st.sampled_from(["r1", "r2", f"{source}-{number}"]),
        "sequence": st.sampled_from([0, 1, -1, "1"]),
        "org": st.sampled_from(["acme", "other", "no org"]),
        "source": st.sampled_from(["bank", "stripe", "led\nger"]),
        "refs": st.sampled_from(
            [{}, {"p": " "}, {"p": ""}, {"p": "k1\0"}, {"p": f"p{number}", "discrepancy": "d"}, {"p": 1}]
        ),
        "id": st.sampled_from(["", "é", "\u2028"]),
        "unknown": st.just(1),
        "received_at": st.sampled_from([0, 1, 61, 180, -30]),
        "occurred_at": st.sampled_from(
            ["2026-03-06", "2026-03-07T00:30:00.123456+02:00", "1969-12-31T23:59:59Z", "0001-01-01T00:00:00+01:00"]
        ),
    }
    for name in draw(st.lists(st.sampled_from(sorted(odd)), max_size=draw(st.sampled_from([0, 0, 0, 1, 2])))):
        value = draw(odd[name])
        if name == "received_at":
            value = (START + timedelta(minutes=minute + value)).isoformat()
        event[name] = value
    return event


@st.composite
def a_line(draw: st.DrawFn) -> bytes:
    if draw(st.integers(0, 30)) == 0:
        return draw(st.sampled_from(BROKEN))
    raw = json.dumps(draw(events()), ensure_ascii=draw(st.booleans())).encode()
    return draw(
        st.sampled_from([raw] * 20 + [raw + b" ", raw + b"\r", b" " + raw, raw + raw, raw[:-5], b"\xef\xbb\xbf" + raw])
    )


@st.composite
def pairs(draw: st.DrawFn) -> list[tuple[int, bytes]]:
    """Both sides of some keys that agree, one in each of two files."""
    found = []
    for number in range(draw(st.integers(1, 8))):
        first, gap = draw(st.integers(0, 300)), draw(st.sampled_from([0, 1, 60, 120, 121, 240]))
        for place, (source, minute) in enumerate((("ledger", first), ("stripe", first + gap))):
            event = {
                "source": source,
                "type": "payment.made",
                "id": f"{source}-p{number}",
                "record": f"p{number}",
                "occurred_at": (START + timedelta(minutes=minute)).isoformat(),
                "amount": f"{number}.00",
                "currency": "EUR",
                "account": "a",
                "refs": {"p": f"p{number}"},
            }
            found.append((place, json.dumps(event).encode()))
    return found


def in_time(raw: bytes) -> str:
    try:
        event = json.loads(raw)
        return str(event.get("received_at") or event["occurred_at"])
    except (ValueError, KeyError, AttributeError, TypeError):
        return ""


@st.composite
def file_sets(draw: st.DrawFn) -> list[bytes]:
    held: list[list[bytes]] = [[], [], []]
    for place, raw in draw(pairs()):
        held[place].append(raw)
    for place, raw in draw(st.lists(st.tuples(st.integers(0, 2), a_line()), max_size=14)):
        at = draw(st.integers(0, len(held[place])))
        held[place].insert(at, raw)
    if draw(st.booleans()):
        held = [sorted(one, key=in_time) for one in held]
    end = draw(st.sampled_from([b"\n", b""]))
    return [b"\n".join(one) + end for one in held[: draw(st.integers(1, 3))]]


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], max_examples=100, deadline=None)
@given(
    file_sets(),
    st.sampled_from(sorted(RULE_SETS)),
    st.sampled_from([(1, 1, 1, 1, 1), (300, 2, 3, 2, 3), (100_000, 50, 4, 5, 1000)]),
    st.booleans(),
    st.booleans(),
)
def test_whatever_stands_in_the_files_the_core_would_have_said_the_same(
    files: list[bytes], rules: str, sizes: tuple[int, int, int, int, int], to_the_end: bool, compiled: bool
) -> None:
    """With small blocks, partitions, pieces and runs."""
    block, partition, piece, run, collect = sizes
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(ahead, "BLOCK_BYTES", block)
        patch.setattr(columns, "BLOCK_BYTES_MAX", block + 2000)
        patch.setattr(ahead, "PARTITION_BYTES", partition * 100)
        patch.setattr(ahead, "PIECE_LINES", piece)
        patch.setattr(ahead, "SORTED_LINES", run)
        patch.setattr(lines, "RUN_LINES", run)
        patch.setattr(replaying, "COLLECT_EVENTS", collect)
        paths = [Path(folder) / f"{number}.jsonl" for number in range(len(files))]
        for path, content in zip(paths, files, strict=True):
            path.write_bytes(content)
        both(paths, packs_of(RULE_SETS[rules]), UNTIL if to_the_end else None, compiled=compiled)


CASES = [case for case in load_match_cases() if not any(has_placeholder(event) for event in case.events)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_case_of_match_is_the_same(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text("".join(json.dumps(event) + "\n" for event in case.events))
    both([path], packs_of(case.rules), datetime.fromisoformat(case.until))


ROOT = Path(__file__).parents[3]
RULES = sorted([*ROOT.glob("shared/packs/*/rules.yaml"), *ROOT.glob("examples/*/rules.yaml")])
EVENTS = sorted(ROOT.glob("examples/*/*.jsonl"))


@pytest.mark.parametrize("rules", RULES, ids=lambda path: path.parent.name)
def test_packs_and_examples_say_the_same_of_all_events_there_are(rules: Path) -> None:
    file = load_rules(rules)
    both(EVENTS, {file.pack: file.rules})


def test_pairs_that_agree_are_settled_ahead_of_the_core(tmp_path: Path) -> None:
    """And only they: one is missing, one differs, one comes back, one is late."""
    rows = []
    for number in range(40):
        event = {
            "type": "payment.made",
            "occurred_at": (START + timedelta(minutes=number)).isoformat(),
            "amount": f"{number}.00",
            "currency": "EUR",
            "refs": {"p": f"k{number}"},
        }
        rows.append({**event, "source": "ledger", "id": f"a{number}"})
        if number != 3:
            rows.append({**event, "source": "stripe", "id": f"b{number}"})
    rows[20]["amount"] = "0.01"
    rows.append({**rows[30], "id": "again", "record": rows[30]["id"]})
    rows[41]["occurred_at"] = (START + timedelta(hours=3)).isoformat()
    path = tmp_path / "events.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert both([path], packs_of([rule()])) == 72


def one_event(source: str, minute: int, **more: Any) -> bytes:
    event = {
        "source": source,
        "type": "payment.made",
        "id": f"{source}-{minute}",
        "record": source,
        "occurred_at": (START + timedelta(minutes=minute)).isoformat(),
        "amount": "1.00",
        "currency": "EUR",
        "refs": {"p": "k"},
    }
    return json.dumps({**event, **more}).encode() + b"\n"


@pytest.mark.parametrize("minute", [0, 30])
def test_a_record_that_is_also_seen_without_a_key_is_for_the_core(minute: int, tmp_path: Path) -> None:
    """Its group without a key is withdrawn, which only who has seen both can tell."""
    path = tmp_path / "events.jsonl"
    pair = one_event("ledger", 10) + one_event("stripe", 20)
    path.write_bytes(pair)
    assert both([path], packs_of([rule()])) == 2
    path.write_bytes(pair + one_event("ledger", minute, id="other", refs={}))
    assert both([path], packs_of([rule()])) == 0


def test_lines_are_complained_about_in_the_order_in_which_the_core_would_meet_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line that is no event follows the one before it, also at the beginning of a block."""
    monkeypatch.setattr(ahead, "BLOCK_BYTES", 1)
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    first.write_bytes(one_event("ledger", 5) + b"{broken\n" + one_event("ledger", 9, currency="QQQ"))
    second.write_bytes(one_event("stripe", 2, currency="QQQ") + b"{broken\n" + one_event("stripe", 7))
    assert both([first, second], packs_of([rule()])) == 2
    (told, *_), _ = said([first, second], packs_of([rule()]), 0)
    assert [line.split("/")[-1].split(" refused")[0] for line in told] == [
        "second.jsonl:1:",
        "second.jsonl:2:",
        "first.jsonl:2:",
        "first.jsonl:3:",
    ]


@pytest.mark.parametrize(
    "amount", ["", "\n", "1.00\n", "1\n2", ".5", "1.", "+1", "1e3", "\u0661", "1" * 39, "-1.00", None]
)
@pytest.mark.parametrize("is_last", [True, False])
def test_an_amount_that_is_not_plain_is_for_the_contract(amount: str | None, is_last: bool, tmp_path: Path) -> None:
    """Wherever it stands in its block; a missing one is for the core."""
    path = tmp_path / "events.jsonl"
    rows = [one_event("stripe", 1), one_event("ledger", 2, amount=amount)]
    path.write_bytes(b"".join(rows if is_last else reversed(rows)))
    assert both([path], packs_of([rule()])) == 0


def test_as_many_events_as_lines_are_no_proof_that_each_line_is_one(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    broken = one_event("ledger", 3).replace(b'"refs": ', b'"refs":\n')
    path.write_bytes(one_event("ledger", 1).strip() + one_event("stripe", 2) + broken)
    assert both([path], packs_of([rule()])) == 0
    told = said([path], packs_of([rule()]), 0)[0][0]
    assert [line.split("/")[-1].split(" refused")[0] for line in told] == [f"events.jsonl:{n}:" for n in (1, 2, 3)]


def payments_in_two_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The sides of a pair stand in different files, and two readers have blocks of a few lines to read."""
    monkeypatch.setattr(readers, "TOGETHER_BYTES_MIN", 0)
    monkeypatch.setattr(readers, "BLOCKS_AT_ONCE", 2)
    monkeypatch.setattr(readers, "_processors", lambda: 2)
    monkeypatch.setattr(ahead, "BLOCK_BYTES", 5000)
    paths = []
    for source in ("ledger", "stripe"):
        rows = [
            {
                "source": source,
                "type": "payment.made",
                "id": f"{source}-{number}",
                "occurred_at": (START + timedelta(minutes=number)).isoformat(),
                "amount": "1.00" if number % 50 or source == "ledger" else "2.00",
                "currency": "EUR",
                "refs": {"p": f"k{number}"},
            }
            for number in range(500)
        ]
        paths.append(tmp_path / f"{source}.jsonl")
        paths[-1].write_text("".join(json.dumps(row) + "\n" for row in rows))
    return paths


@pytest.mark.parametrize("compiled", [True, False])
def test_several_readers_find_the_pairs_that_one_finds(
    compiled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads that read in C, or processes: each reads some of the blocks."""
    paths = payments_in_two_files(tmp_path, monkeypatch)
    assert both(paths, packs_of([rule()]), compiled=compiled) == 1000 - 2 * 10


def test_a_reader_that_is_killed_ends_the_replay_in_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that ended is not read past, nor waited for."""
    paths = payments_in_two_files(tmp_path, monkeypatch)

    def kill_one(_done: int, _of: int) -> None:
        for child in multiprocessing.active_children():
            child.kill()

    with pytest.raises(readers.ReaderLost, match="killed or out of memory"):
        replaying.replay(
            paths,
            packs_of([rule()]),
            org="acme",
            until=UNTIL,
            complain=lambda _place, _what: None,
            step=kill_one,
            items=False,
            ahead_bytes_min=0,
            compiled=False,
        )
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("bytes_min", [0, NEVER])
def test_nothing_that_a_killed_replay_would_leave_has_a_name(
    bytes_min: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scratch files of a file out of order, read ahead or not, and of a pipe."""
    scratch, path, pipe = tmp_path / "scratch", tmp_path / "events.jsonl", tmp_path / "pipe"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    monkeypatch.setattr(lines, "RUN_LINES", 2)
    monkeypatch.setattr(ahead, "SORTED_LINES", 2)
    monkeypatch.setattr(replaying, "COLLECT_EVENTS", 1)
    rows = [one_event("ledger", minute, refs={"p": str(minute)}) for minute in (9, 2, 7, 1, 5)]
    path.write_bytes(b"".join(rows))
    if bytes_min:
        os.mkfifo(pipe)
        threading.Thread(target=pipe.write_bytes, args=(rows[0],), daemon=True).start()
    seen: list[list[Path]] = []
    replaying.replay(
        [path, pipe] if bytes_min else [path],
        packs_of([rule()]),
        org="acme",
        until=None,
        complain=lambda _place, _what: None,
        step=lambda _done, _of: seen.append(list(scratch.iterdir())),
        items=False,
        ahead_bytes_min=bytes_min,
    )
    assert seen
    assert not any(seen)


def test_a_file_that_changes_under_the_replay_is_one_clear_error(tmp_path: Path) -> None:
    """It is read twice: what was an event has to be one."""
    path = tmp_path / "events.jsonl"
    path.write_bytes(one_event("ledger", 9) + one_event("ledger", 10, refs={"p": "other"}))

    def overwrite(_done: int, _of: int) -> None:
        path.write_bytes(b" " * path.stat().st_size)

    with pytest.raises(UsageError, match=r"events\.jsonl:1: the file has changed"):
        replaying.replay(
            [path],
            packs_of([rule()]),
            org="acme",
            until=None,
            complain=lambda _place, _what: None,
            step=overwrite,
            items=False,
            ahead_bytes_min=0,
        )


@pytest.mark.parametrize("bytes_min", [0, NEVER])
def test_a_full_disk_is_one_clear_error(bytes_min: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which names the folder of the scratch files, and what to do."""
    path = tmp_path / "events.jsonl"
    path.write_bytes(one_event("ledger", 9) + one_event("ledger", 2) + one_event("ledger", 5))
    monkeypatch.setattr(lines, "RUN_LINES", 2)
    monkeypatch.setattr(tempfile, "TemporaryFile", partial(Path("/dev/full").open, "r+b", 0))
    with pytest.raises(replaying.NoRoom, match="TMPDIR"):
        said([path], packs_of([rule()]), bytes_min)


def test_an_engine_that_keeps_items_sees_every_event(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text("")
    told: list[str] = []
    done = replaying.replay(
        [path],
        packs_of([rule()]),
        org="acme",
        until=None,
        complain=lambda _, what: told.append(what),
        ahead_bytes_min=0,
    )
    assert done.settled_ahead is None
