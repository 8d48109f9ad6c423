"""`tieout import` as people type it, against a server that answers as ingest does."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import stamina
from click.testing import Result
from typer.testing import CliRunner

from shared.errors import DependencyAway, TieoutError, UsageError
from tieout.cli import build

MAPPING = """
version: 1
source: bank
type: {credit: movement.credit, debit: movement.debit}
id: {column: id}
occurred_at: {column: day, zone: UTC}
amount: {column: amount}
currency: EUR
"""
HEAD = "id,day,amount\n"
Answer = tuple[int, dict[str, Any], dict[str, str]]


def accepted(rows: list[dict[str, Any]]) -> Answer:
    results = [{"index": index, "status": "accepted", "id": row["id"]} for index, row in enumerate(rows)]
    return 202, {"accepted": len(rows), "refused": 0, "results": results}, {}


@dataclass
class Ingest:
    """Answers each request with the next of `answers`, then accepts all."""

    url: str = ""
    answers: list[Callable[[list[dict[str, Any]]], Answer]] = field(default_factory=list)
    requests: list[list[dict[str, Any]]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    taken: dict[str, dict[str, Any]] = field(default_factory=dict)

    def answer(self, rows: list[dict[str, Any]]) -> Answer:
        self.requests.append(rows)
        status, body, headers = (self.answers.pop(0) if self.answers else accepted)(rows)
        for one in body.get("results", []):
            if one["status"] == "accepted":
                self.taken[rows[one["index"]]["id"]] = rows[one["index"]]
        return status, body, headers


@pytest.fixture
def ingest(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ingest]:
    state = Ingest()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["content-length"]))
            state.headers.append(dict(self.headers) | {"path": self.path})
            status, body, headers = state.answer([json.loads(line) for line in raw.splitlines()])
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: object) -> None:
            """Tests print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("TIEOUT_INGEST_URL", state.url)
    monkeypatch.setenv("TIEOUT_API_KEY", "tk_x_secret")
    monkeypatch.delenv("TIEOUT_KAFKA_BOOTSTRAP_SERVERS", raising=False)
    monkeypatch.setattr("tieout.ingest_api.RETRY_WAIT_S", 0.01)
    yield state
    server.shutdown()
    server.server_close()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "bank.yaml").write_text(MAPPING)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lines(count: int, first: int = 1) -> str:
    return "".join(f"r{number},2026-10-20,{number}.00\n" for number in range(first, first + count))


def run(*words: str, files: str = "bank.csv") -> Result:
    return CliRunner().invoke(build(), ["import", *files.split(), "--as", "csv", "--mapping", "bank.yaml", *words])


def error(result: Result) -> TieoutError:
    assert isinstance(result.exception, TieoutError), result.output
    return result.exception


def test_rows_are_posted_as_ndjson_with_the_key(ingest: Ingest, folder: Path):
    (folder / "bank.csv").write_text(HEAD + lines(3))
    told = run()

    assert (told.exit_code, told.stdout) == (0, "3 rows read, 3 events sent, 0 refused.\n")
    assert [row["id"] for row in ingest.requests[0]] == ["r1", "r2", "r3"]
    assert ingest.headers[0]["Authorization"] == "Bearer tk_x_secret"
    assert (ingest.headers[0]["path"], ingest.headers[0]["Content-Type"]) == ("/v1/events", "application/x-ndjson")
    assert ingest.requests[0][0] == {
        "source": "bank",
        "type": "movement.credit",
        "id": "r1",
        "occurred_at": "2026-10-20T00:00:00Z",
        "amount": "1.00",
        "currency": "EUR",
    }


def test_many_rows_go_in_batches(ingest: Ingest, folder: Path):
    (folder / "bank.csv").write_text(HEAD + lines(2500))
    assert run().exit_code == 0
    assert [len(rows) for rows in ingest.requests] == [1000, 1000, 500]


def test_broken_rows_are_named_and_the_rest_is_sent(ingest: Ingest, folder: Path):
    (folder / "bank.csv").write_text(HEAD + lines(2) + 'r3,"2026\n' + "r4,2026-10-20,x\n" + lines(2, 5))
    told = run()

    assert told.exit_code == 0
    assert told.stdout == "6 rows read, 4 events sent, 2 refused.\n"
    assert [line.split(": ")[0:2] for line in told.stderr.splitlines()] == [
        ["bank.csv:4", "refused"],
        ["bank.csv:5", "refused"],
    ]
    assert sorted(ingest.taken) == ["r1", "r2", "r5", "r6"]


def test_strict_sends_nothing_after_the_first_error(ingest: Ingest, folder: Path):
    (folder / "bank.csv").write_text(HEAD + lines(1500) + "broken\n" + lines(10, 2000))
    told = run("--strict")

    assert isinstance(told.exception, UsageError)
    assert str(told.exception).startswith("bank.csv:1502: refused: has 1 cell where the table has 3 columns")
    assert [len(rows) for rows in ingest.requests] == [1000]


def test_rows_that_ingest_refuses_are_named_by_their_line(ingest: Ingest, folder: Path):
    def partly(rows: list[dict[str, Any]]) -> Answer:
        _, body, headers = accepted(rows)
        body["results"][1] = {"index": 1, "status": "refused", "field": "id", "error": "id: nobody likes it"}
        return 207, body, headers

    ingest.answers.append(partly)
    (folder / "bank.csv").write_text(HEAD + lines(3))
    told = run()

    assert told.stdout == "3 rows read, 2 events sent, 1 refused.\n"
    assert told.stderr == "bank.csv:3: refused by ingest: id: nobody likes it\n"
    ingest.answers.append(
        lambda rows: (
            422,
            {
                "detail": "No row",
                "results": [{"index": n, "status": "refused", "error": "no"} for n in range(len(rows))],
            },
            {},
        )
    )
    assert run().stdout == "3 rows read, 0 events sent, 3 refused.\n"
    ingest.answers.append(partly)
    assert isinstance(run("--strict").exception, UsageError)


@pytest.mark.parametrize("status", [429, 503, 500])
def test_a_busy_ingest_is_asked_again(ingest: Ingest, folder: Path, status: int):
    ingest.answers += [lambda _rows: (status, {"detail": "come back"}, {"Retry-After": "0"})] * 3
    (folder / "bank.csv").write_text(HEAD + lines(2))
    told = run()

    assert told.stdout == "2 rows read, 2 events sent, 0 refused.\n"
    assert len(ingest.requests) == 4
    assert told.stderr.count("; trying again in 0.0 s") == 3


def test_a_request_that_is_too_large_is_sent_in_parts(ingest: Ingest, folder: Path):
    def small(rows: list[dict[str, Any]]) -> Answer:
        return accepted(rows) if len(rows) <= 2 else (413, {"detail": "too many"}, {})

    ingest.answers += [small] * 20
    (folder / "bank.csv").write_text(HEAD + lines(7))
    assert run().stdout == "7 rows read, 7 events sent, 0 refused.\n"
    assert list(ingest.taken) == [f"r{number}" for number in range(1, 8)]


def test_one_row_that_is_too_large_is_refused_alone(ingest: Ingest, folder: Path):
    def tiny(rows: list[dict[str, Any]]) -> Answer:
        return (413, {"detail": "too large"}, {}) if any(row["id"] == "r2" for row in rows) else accepted(rows)

    ingest.answers += [tiny] * 20
    (folder / "bank.csv").write_text(HEAD + lines(4))
    told = run()
    assert told.stdout == "4 rows read, 3 events sent, 1 refused.\n"
    assert told.stderr == "bank.csv:3: refused by ingest: the event is larger than this ingest takes\n"


def test_an_ingest_that_stays_away_ends_with_3_and_the_same_command_goes_on(
    ingest: Ingest, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TIEOUT_IMPORT_RETRY_TIMEOUT_S", "0.05")
    ingest.answers += [accepted, *[lambda _rows: (503, {"detail": "kafka-away"}, {})] * 100]
    (folder / "bank.csv").write_text(HEAD + lines(1200))
    told = run()

    assert isinstance(told.exception, DependencyAway)
    assert error(told).exit_code == 3
    assert "1,000 events were accepted, up to the row before bank.csv:1002; run the same command again" in str(
        error(told)
    )
    ingest.answers.clear()
    assert run().exit_code == 0
    assert len(ingest.taken) == 1200


def test_nobody_there_is_told_with_what_to_do(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TIEOUT_INGEST_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("TIEOUT_API_KEY", "tk_x_secret")
    (folder / "bank.csv").write_text(HEAD + lines(2))
    with stamina.set_testing(True, attempts=2):
        told = run()
    assert "ingest at http://127.0.0.1:9 does not answer: " in str(error(told))
    assert error(told).exit_code == 3
    assert "tk_x_secret" not in str(error(told)) + told.output


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "(the key is TIEOUT_API_KEY)"),
        (404, "is this ingest? Set TIEOUT_INGEST_URL"),
        (400, "answers 400: broken"),
    ],
)
def test_mistakes_of_the_whole_request_end_the_import(ingest: Ingest, folder: Path, status: int, words: str):
    body = {} if status == 404 else {"detail": "broken"}
    ingest.answers += [lambda _rows: (status, body, {})]
    (folder / "bank.csv").write_text(HEAD + lines(2))
    told = run()
    assert words in str(error(told))
    assert len(ingest.requests) == 1


def test_a_server_that_is_no_ingest_is_told(ingest: Ingest, folder: Path):
    ingest.answers += [lambda _rows: (200, {"hello": "world"}, {})]
    (folder / "bank.csv").write_text(HEAD + lines(2))
    assert "does not answer as ingest does; set TIEOUT_INGEST_URL" in str(error(run()))


def test_exports_that_overlap_are_sent_once(ingest: Ingest, folder: Path):
    (folder / "october.csv").write_text(HEAD + lines(4))
    (folder / "november.csv").write_text(HEAD + lines(4, 3))
    told = run(files="october.csv november.csv")

    assert told.stdout == "8 rows read, 6 events sent, 2 events came again and are the same, 0 refused.\n"
    assert [row["id"] for row in ingest.requests[0]] == [f"r{number}" for number in range(1, 7)]


def test_an_id_that_names_two_rows_is_told_instead_of_sent(ingest: Ingest, folder: Path):
    (folder / "bank.csv").write_text(HEAD + "r1,2026-10-20,1\nr1,2026-10-20,2\n")
    told = run()

    assert told.stdout == "2 rows read, 1 events sent, 1 refused.\n"
    assert "bank.csv:3: refused: id: 'r1' names another event in bank.csv:2; an id must be unique" in told.stderr


def test_equal_lines_without_ids_are_two_movements_and_overlap_is_still_once(ingest: Ingest, folder: Path):
    (folder / "bank.yaml").write_text(MAPPING.replace("{column: id}", "{hash: row}"))
    (folder / "a.csv").write_text(HEAD + "x,2026-10-20,5\nx,2026-10-20,5\nx,2026-10-21,5\n")
    (folder / "b.csv").write_text(HEAD + "x,2026-10-20,5\nx,2026-10-20,5\nx,2026-10-22,5\n")
    assert (
        run(files="a.csv b.csv").stdout
        == "6 rows read, 4 events sent, 2 events came again and are the same, 0 refused.\n"
    )
    assert len(ingest.taken) == 4


def test_what_the_contract_refuses_is_not_sent(ingest: Ingest, folder: Path):
    (folder / "bank.yaml").write_text(
        MAPPING.replace("{credit: movement.credit, debit: movement.debit}", "payment.booked")
    )
    (folder / "bank.csv").write_text(HEAD + "r1,2026-10-20,-1\nr2,2999-01-01,1\n")
    told = run()

    assert told.stdout == "2 rows read, 0 events sent, 2 refused.\n"
    assert (
        "bank.csv:2: refused: amount: -1.00 is negative, but the type 'payment.booked' says the direction"
        in told.stderr
    )
    assert "bank.csv:3: refused: occurred_at: 2999" in told.stderr
    assert ingest.requests == []


def test_a_dry_run_sends_nothing_and_shows_what_would_happen(ingest: Ingest, folder: Path):
    (folder / "bank.csv").write_text(HEAD + "r1,2026-10-20,10.50\nr2,2026-10-21,-3\nr3,2026-10-21,2\n")
    (folder / "rules.yaml").write_text(
        "version: 1\npack: p\nrules:\n  - name: p.bank\n    kind: match\n    key: refs.ref\n"
        "    sides: {internal: {source: ledger, type: [payment.*]}, provider: {source: bank, type: [movement.debit]}}\n"
    )
    told = run("--dry-run", "--rules", "rules.yaml")

    assert told.exit_code == 0
    assert ingest.requests == []
    for words in (
        "  bank/movement.credit: 2, 12.50 EUR\n  bank/movement.debit: 1, -3.00 EUR\n",
        "Rules that would take them:\n  p.bank: 1\n",
        "p.bank: 1 become dead letters: no match key, e.g. bank event r2: refs.ref is empty",
        "no rule selects bank/movement.credit: not reconciled (2)\n",
        "3 rows read, 3 events would be sent, 0 refused.\n",
    ):
        assert words in told.stdout
    assert "Give --rules FILE" in run("--dry-run").stdout


def test_output_writes_a_whole_file_or_none(folder: Path):
    (folder / "bank.csv").write_text(HEAD + lines(3))
    assert run("--output", "out.jsonl").stdout == "3 rows read, 3 events written, 0 refused.\n"
    assert [json.loads(line)["id"] for line in (folder / "out.jsonl").read_text().splitlines()] == ["r1", "r2", "r3"]

    before = (folder / "out.jsonl").read_bytes()
    (folder / "bank.csv").write_text(HEAD + lines(5) + "broken\n")
    assert isinstance(run("--output", "out.jsonl", "--strict").exception, UsageError)
    assert (folder / "out.jsonl").read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == ["bank.csv", "bank.yaml", "out.jsonl"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["x.csv", "--as", "csv"], "--as csv needs --mapping FILE"),
        (["x.csv", "--as", "stripe-balance", "--mapping", "bank.yaml"], "--mapping belongs to --as csv"),
        (["x.csv", "--as", "stripe-balance", "--dry-run", "--output", "o"], "--dry-run writes nothing"),
        (["x.csv", "--as", "stripe-balance", "--rules", "r.yaml"], "--rules belongs to --dry-run"),
        (["x.csv", "--as", "stripe-balance", "--zone", "Mars", "--dry-run"], "--zone: 'Mars' is no time zone"),
        (["x.csv", "--as", "csv", "--mapping", "none.yaml"], "none.yaml: cannot be read: No such file or directory"),
        (
            ["x.csv", "--as", "csv", "--mapping", "bank.yaml", "--dry-run"],
            "x.csv: cannot be read: No such file or directory",
        ),
        (
            ["bank.yaml", "--as", "csv", "--mapping", "bank.yaml", "--output", "no/such/place"],
            "no/such/place: cannot be written",
        ),
    ],
)
def test_wrong_usage_is_told(folder: Path, words: list[str], said: str):
    told = CliRunner().invoke(build(), ["import", *words])
    assert said in str(error(told))
    assert error(told).exit_code == 2


def test_a_file_in_another_encoding_is_told_with_the_likely_one(folder: Path):
    (folder / "bank.csv").write_bytes(
        (HEAD + "Zürich,2026-10-20,1\nGenève,2026-10-20,2\nr3,2026-10-20,3\n").encode("cp1252")
    )
    told = run("--output", "out.jsonl")

    assert told.stdout == "3 rows read, 1 events written, 2 refused.\n"
    assert "bank.csv:2: refused: byte 0xfc at position 2 is no utf-8" in told.stderr
    assert "bank.csv: reads as cp1252" in told.stderr
    assert "rather than utf-8: set `file.encoding` in bank.yaml" in told.stderr


def test_a_file_without_rows_is_told(folder: Path):
    (folder / "bank.csv").write_text(HEAD)
    assert (
        run("--output", "out.jsonl").stdout
        == "note: bank.csv has a header and no rows\n0 rows read, 0 events written, 0 refused.\n"
    )


def test_a_file_with_other_line_ends_is_told(folder: Path):
    (folder / "bank.csv").write_bytes(b"id,day,amount\rr1,2026-10-20,1\r")
    assert "save the file with line feeds at the ends of its lines" in str(error(run("--output", "out.jsonl")))


def test_two_reports_of_one_transaction_with_other_columns_are_both_taken(folder: Path):
    """Which columns a report has is chosen at its export; the id of the transaction and its money stay."""
    columns = "balance_transaction_id,created_utc,currency,gross,fee,net,reporting_category,automatic_payout_id"
    row = "txn_1,2026-10-01 10:00:00,eur,5.00,0.00,5.00,charge,po_1"
    (folder / "activity.csv").write_text(f"{columns}\n{row}\n")
    (folder / "reconciliation.csv").write_text(f"{columns},charge_id\n{row},ch_1\n")
    (folder / "wrong.csv").write_text(f"{columns}\n{row.replace('5.00', '6.00')}\n")
    told = CliRunner().invoke(
        build(),
        [
            "import",
            "activity.csv",
            "reconciliation.csv",
            "activity.csv",
            "wrong.csv",
            "--as",
            "stripe-balance",
            "--output",
            "out.jsonl",
        ],
    )

    assert told.stdout == "4 rows read, 2 events written, 1 events came again and are the same, 1 refused.\n"
    assert [json.loads(line)["refs"].get("charge_id") for line in (folder / "out.jsonl").read_text().splitlines()] == [
        None,
        "ch_1",
    ]


def test_memory_does_not_grow_with_the_file(folder: Path):
    """Ten times the rows: the same few megabytes of Python's own memory."""
    import tracemalloc

    peaks = []
    for count in (1_500, 15_000):
        (folder / "bank.csv").write_text(HEAD + lines(count))
        tracemalloc.start()
        assert run("--output", "out.jsonl").exit_code == 0
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 1_000_000, peaks


def test_a_flood_of_errors_is_cut_and_counted(folder: Path):
    (folder / "bank.csv").write_text(HEAD + "x\n" * 1500)
    told = run("--output", "out.jsonl")
    assert told.stderr.splitlines()[-1] == "… and 500 more rows"
    assert len(told.stderr.splitlines()) == 1001


def test_help_shows_examples():
    told = CliRunner().invoke(build(), ["import", "--help"])
    assert "tieout import bank.csv --as csv --mapping bank.yaml --dry-run --rules" in told.stdout
