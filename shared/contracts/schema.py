"""JSON Schema of every public record, AsyncAPI and the list of metrics, generated from the code into `docs/`.

`python -m shared.contracts.schema` writes; with `--check` it writes nothing and exits 1 naming stale files.
"""

import argparse
import ast
import inspect
import sys
import textwrap
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, cast, get_args

import msgspec
from pydantic import BaseModel

from shared.contracts.anomaly import Anomaly
from shared.contracts.dead_letter import DeadLetter
from shared.contracts.directory import DirectoryEntry, KeyEntry, OrgEntry, PollEntry, SourceEntry
from shared.contracts.discrepancy import Check, Discrepancy, FeedStatus, LogPosition, MatchType, Progress, SideEvidence
from shared.contracts.event import Event, PostedEvent
from shared.contracts.inbox import (
    CutRequested,
    InboxRecord,
    RowReceived,
    TickRequested,
    WebhookReceived,
    WithdrawRequested,
)
from shared.contracts.item import Item, ItemDiscrepancy, ItemSide
from shared.contracts.leg import Cut, FeedCount, Leg, LegRecord, RuleRecord, Tick, Withdraw
from shared.contracts.matched_pair import MatchedPair, PairWords
from shared.contracts.near_miss import Cluster, NearMiss
from shared.contracts.not_reconciled import NotReconciledEvent
from shared.contracts.rule_set import RuleSetRecord
from shared.contracts.webhook import AnomalyMessage, DiscrepancyMessage, Storm, StormMessage, TestData, TestMessage
from shared.rules.balance_rule import MISMATCH
from shared.rules.candidate_rule import AMBIGUOUS
from shared.rules.match_rule import Compare, CompareAmount, MatchRuleModel
from shared.rules.model import RuleFile
from shared.rules.parts import Selector
from shared.rules.zero_sum_rule import IMBALANCE

DIALECT = "https://json-schema.org/draft/2020-12/schema"
DOCS = Path(__file__).resolve().parents[2] / "docs"


class Contract(NamedTuple):
    """One schema file: what it describes, and the classes whose field docstrings explain it."""

    name: str
    title: str
    record: Any
    documented: tuple[type, ...]

    @property
    def file(self) -> str:
        """Name of the schema file in docs/contracts."""
        return f"{self.name}.schema.json"


CONTRACTS: tuple[Contract, ...] = (
    Contract("posted-event", "An event as a producer posts it", PostedEvent, (PostedEvent,)),
    Contract("event", "A canonical event (topic events)", Event, (Event,)),
    Contract(
        "inbox-record",
        "Everything that came in, as it came (topic inbox)",
        InboxRecord,
        (WebhookReceived, RowReceived, TickRequested, CutRequested, WithdrawRequested),
    ),
    Contract(
        "leg-record",
        "Legs and the control records between them (topic legs)",
        LegRecord,
        (Leg, Tick, FeedCount, RuleRecord, Cut, Withdraw),
    ),
    Contract(
        "discrepancy",
        "One revision of one discrepancy (topic discrepancies)",
        Discrepancy,
        (Discrepancy, SideEvidence, LogPosition),
    ),
    Contract(
        "near-miss", "What the API and replay say of a discrepancy's near miss (`near_miss`)", NearMiss, (NearMiss,)
    ),
    Contract("cluster", "What the API and replay say of a discrepancy's cluster (`cluster`)", Cluster, (Cluster,)),
    Contract(
        "progress", "How far a partition was applied (topics discrepancies, matches, checks)", Progress, (Progress,)
    ),
    Contract("feed-status", "How a source's feed stands, by partition (topic checks)", FeedStatus, (FeedStatus,)),
    Contract("item", "The outcome of one group (topic matches)", Item, (Item, ItemSide, ItemDiscrepancy, SideEvidence)),
    Contract("matched-pair", "The item of two legs that agree (topic matches)", MatchedPair, (MatchedPair, PairWords)),
    Contract("check", "A verdict on a reading (topic checks)", Check, (Check,)),
    Contract("dead-letter", "A record that was set aside (topic dead-letters)", DeadLetter, (DeadLetter,)),
    Contract(
        "not-reconciled",
        "An event that no rule selects (topic not-reconciled)",
        NotReconciledEvent,
        (NotReconciledEvent,),
    ),
    Contract(
        "directory-entry",
        "Organisations, sources and API keys (topic directory)",
        DirectoryEntry,
        (OrgEntry, SourceEntry, KeyEntry, PollEntry),
    ),
    Contract("rule-set", "The rules of one pack in force for one org (topic rules)", RuleSetRecord, (RuleSetRecord,)),
    Contract(
        "rules-file",
        "A rules file, as people write it (YAML)",
        RuleFile,
        (RuleFile, MatchRuleModel, Selector, Compare, CompareAmount),
    ),
    Contract(
        "webhook-message",
        "The body of an outgoing webhook",
        (DiscrepancyMessage, StormMessage, TestMessage, AnomalyMessage),
        (
            DiscrepancyMessage,
            StormMessage,
            Storm,
            TestMessage,
            TestData,
            AnomalyMessage,
            Anomaly,
            Discrepancy,
            SideEvidence,
            LogPosition,
        ),
    ),
)


def schema_of(contract: Contract) -> dict[str, Any]:
    """Return the JSON Schema of `contract`."""
    is_model = inspect.isclass(contract.record) and issubclass(contract.record, BaseModel)
    body = _rules_schema() if is_model else _record_schema(contract.record)
    definitions = cast("dict[str, Any]", body.get("$defs", {}))
    for documented in contract.documented:
        target = definitions.get(documented.__name__)
        if target is None and body.get("title") == documented.__name__:
            target = body
        if target is not None:
            _describe_fields(target, documented)
    return {"$schema": DIALECT, "$id": contract.file, **body, "title": contract.title}


def _record_schema(record: Any) -> dict[str, Any]:
    """Return the schema of a type, or of a tuple of types any of which may come."""
    if not isinstance(record, tuple):
        return msgspec.json.schema(record)
    choices, definitions = msgspec.json.schema_components(record, ref_template="#/$defs/{name}")
    return {"anyOf": list(choices), "$defs": definitions}


def _describe_fields(target: dict[str, Any], documented: type) -> None:
    texts = field_texts(documented)
    if "prefixItems" in target:
        _name_places(target["prefixItems"], documented, texts)
        return
    for name, text in texts.items():
        field = target.get("properties", {}).get(name)
        if field is not None:
            field.setdefault("description", text)


def _name_places(places: list[dict[str, Any]], documented: type, texts: dict[str, str]) -> None:
    """Records that travel as arrays: the place says what a name says elsewhere."""
    fields = tuple(field.name for field in msgspec.structs.fields(documented))
    names = fields if len(places) == len(fields) else ("tag", *fields)
    for place, name in zip(places, names, strict=True):
        place["title"] = name
        if name in texts:
            place.setdefault("description", texts[name])


def field_texts(documented: type) -> dict[str, str]:
    """Return the docstring under each field of a class."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(documented))).body[0]
    assert isinstance(tree, ast.ClassDef)
    return dict(_documented_fields(tree.body))


def _documented_fields(body: Sequence[ast.stmt]) -> Iterator[tuple[str, str]]:
    for statement, after in pairwise(body):
        match statement, after:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                yield name, " ".join(text.split())


LISTED = ("key", "partition_by", "same")
"""Fields that take one name as well as a list of them."""


def _rules_schema() -> dict[str, Any]:
    """Describe the YAML as people write it: the model also takes short forms, which pydantic's schema does not know."""
    schema = RuleFile.model_json_schema()
    parts = schema["$defs"]
    listed = [(name, field) for name, part in parts.items() for field in LISTED if field in part.get("properties", {})]
    for model, field in (*listed, ("Selector", "type"), ("FeedRuleModel", "source")):
        many = parts[model]["properties"][field]
        short = {key: value for key, value in many["items"].items() if key != "title"}
        parts[model]["properties"][field] = {"anyOf": [short, many], "title": many.pop("title")}
    for part in parts.values():
        _with_short_forms(part.get("properties", {}))
    sign_values = parts["SignBy"]["properties"].pop("values")["additionalProperties"]
    parts["SignBy"] |= {"required": ["by"], "additionalProperties": sign_values, "minProperties": 2}
    severity = parts["SeverityMap"]["properties"].pop("types")["additionalProperties"]
    parts["SeverityOfCodes"] = parts["SeverityMap"] | {"additionalProperties": severity}
    parts["InvariantRuleModel"]["properties"]["severity"]["$ref"] = "#/$defs/SeverityOfCodes"
    types = (*get_args(MatchType), AMBIGUOUS, IMBALANCE, MISMATCH)
    parts["SeverityMap"]["properties"] = parts["SeverityMap"]["properties"] | dict.fromkeys(types, severity)
    parts["AccountOverride"]["additionalProperties"] = parts["AccountOverride"]["properties"].pop("checks")[
        "additionalProperties"
    ]
    for field in parts["Compare"]["properties"].values():
        field.pop("default", None)
    return schema


def _with_short_forms(fields: dict[str, Any]) -> None:
    """Let a calendar be its name, one reference field stand without a list, and a share be a number."""
    if "calendar" in fields:
        fields["calendar"]["anyOf"].append({"type": "string"})
    if "fields" in fields and "anyOf" in fields["fields"]:
        fields["fields"]["anyOf"].append({"type": "string"})
    for share in ("accept", "margin"):
        if share in fields:
            fields[share] |= {"type": ["string", "number"]}
    if "apart" in fields:
        fields["apart"]["anyOf"].append({"type": "string"})


def render_schema(contract: Contract) -> str:
    """Return the text of the contract's schema file."""
    return msgspec.json.format(msgspec.json.encode(schema_of(contract)), indent=2).decode() + "\n"


def rendered() -> dict[str, str]:
    """Return every generated file: path below docs/, text."""
    from shared.contracts.asyncapi import render_asyncapi
    from shared.telemetry.catalogue import as_markdown

    files = {f"contracts/{contract.file}": render_schema(contract) for contract in CONTRACTS}
    files["contracts/asyncapi.yaml"] = render_asyncapi()
    files["metrics.md"] = as_markdown()
    return files


def stale_files(docs: Path) -> list[str]:
    """Return the generated files below `docs` that are missing, differ from the code, or describe nothing any more."""
    files = rendered()
    stale = [name for name, text in files.items() if not _holds(docs / name, text)]
    known = {Path(name).name for name in files}
    left_over = [path for path in (docs / "contracts").glob("*.schema.json") if path.name not in known]
    return sorted([*stale, *(f"contracts/{path.name}" for path in left_over)])


def _holds(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text


def write_files(docs: Path) -> list[str]:
    """Write every generated file below `docs`; return the names of those that changed."""
    changed = []
    for name, text in rendered().items():
        path = docs / name
        if _holds(path, text):
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        changed.append(name)
    return changed


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check the generated documents; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m shared.contracts.schema", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 and name the stale files")
    parser.add_argument("--docs", type=Path, default=DOCS, help="the folder docs (default: this project's)")
    given = parser.parse_args(arguments)
    if not given.check:
        for name in write_files(given.docs):
            sys.stdout.write(f"wrote {given.docs / name}\n")
        return 0
    stale = stale_files(given.docs)
    for name in stale:
        sys.stdout.write(f"stale: {given.docs / name}; run python -m shared.contracts.schema\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
