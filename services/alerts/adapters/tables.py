"""The tables of alerts. Amounts are exact NUMERIC, times have a zone, and every row of an organisation carries `org`.

Row-level security by `org` is forced on every table in `ORG_TABLES`; a transaction says whose rows it may touch
(`Database.transaction`). There are no foreign keys between rows that come from different topics: they may arrive in
any order.
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

metadata = MetaData(
    naming_convention={
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "pk": "%(table_name)s_pkey",
    }
)

_Id = Uuid(as_uuid=False)
_Time = DateTime(timezone=True)
_NOW = func.now()

orgs = Table(
    "orgs",
    metadata,
    Column("org", Text, primary_key=True),
    Column("zone", Text, nullable=False, server_default="UTC", comment="IANA zone in which its days begin and end"),
    Column("created_at", _Time, nullable=False, server_default=_NOW),
)

sources = Table(
    "sources",
    metadata,
    Column("org", Text, primary_key=True),
    Column("source", Text, primary_key=True),
    Column("provider", Text, comment="webhook mapping; null for sources that post events"),
    Column("created_at", _Time, nullable=False, server_default=_NOW),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True, comment="public part of tk_<id>_<secret>"),
    Column("org", Text, nullable=False),
    Column("sha256", Text, nullable=False, comment="hex digest of the whole key; the key itself is nowhere"),
    Column("role", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("created_at", _Time, nullable=False, server_default=_NOW),
    Column("revoked_at", _Time),
    Index(None, "org", "created_at"),
)

discrepancies = Table(
    "discrepancies",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("org", Text, nullable=False),
    Column("group_id", _Id, nullable=False, comment="name of org, rule and key: finds the item of the same group"),
    Column("revision", Integer, nullable=False),
    Column("state", Text, nullable=False, comment="raised or resolved: the matcher's word"),
    Column("status", Text, nullable=False, comment="open, acknowledged or resolved: people's word"),
    Column("rule", Text, nullable=False),
    Column("pack", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("severity", Text, nullable=False),
    Column("key", JSONB, nullable=False, comment="a string for a key of one field, else a list"),
    Column("side", Text),
    Column("account", Text),
    # JSON, not JSONB, which would sort the sides: their order says which one is expected.
    Column("sides", JSON, nullable=False),
    Column("duplicate", Text),
    Column("expected", Text, comment="as published: an amount, or the status or currency that differs"),
    Column("actual", Text),
    Column("difference", Numeric, comment="actual - expected, exact; null where the two are no amounts"),
    Column("currency", Text),
    Column("raised_at", _Time, nullable=False, comment="first raise"),
    Column("resolved_at", _Time),
    Column("resolution", Text),
    Column("expired", Boolean, nullable=False),
    Column("explanation", Text, nullable=False),
    Column("log_partition", Integer, nullable=False),
    Column("log_offset", BigInteger, nullable=False),
    Column("log_time", _Time, nullable=False),
    Column("assignee", Text),
    Column("reason", Text, comment="a person's reason code, or the engine's resolution"),
    Column("accepted", JSONB, comment="type, expected, actual, currency that a person resolved: others reopen it"),
    Column("reopened", Integer, nullable=False, server_default="0", comment="how often it came back after a resolve"),
    Column("status_at", _Time, nullable=False, comment="when status last changed"),
    Column("stored_at", _Time, nullable=False, server_default=_NOW, comment="when the sink first stored it"),
    Column(
        "shadow",
        Boolean,
        nullable=False,
        server_default="false",
        comment="from a rule that only watches: no alert, no report",
    ),
    Column("cause", Text, comment="which of a type's causes it is, in the matcher's words"),
    Column("explained", Numeric),
    Column("unexplained", Numeric),
    Index(None, "org", "raised_at", "id"),
    Index("discrepancies_open_idx", "org", "status", "raised_at", postgresql_where=text("status <> 'resolved'")),
    Index(None, "group_id"),
)

discrepancy_revisions = Table(
    "discrepancy_revisions",
    metadata,
    # A key that returns after `keep` may start again at revision 1 under the same id: the log offset tells them apart.
    Column("id", _Id, primary_key=True),
    Column("log_offset", BigInteger, primary_key=True),
    Column("revision", Integer, primary_key=True),
    Column("log_partition", Integer, nullable=False),
    Column("log_time", _Time, nullable=False),
    Column("org", Text, nullable=False),
    Column("rule", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("severity", Text, nullable=False),
    Column("expected", Text),
    Column("actual", Text),
    Column("difference", Numeric),
    Column("currency", Text),
    Column("raised_at", _Time, nullable=False),
    Column("resolved_at", _Time),
    Column("resolution", Text),
    Column("expired", Boolean, nullable=False),
    Column("explanation", Text, nullable=False),
    # JSON, not JSONB, which would sort the sides: their order says which one is expected.
    Column("sides", JSON, nullable=False),
    Column("shadow", Boolean, nullable=False, server_default="false"),
    Column("cause", Text),
    Column("explained", Numeric),
    Column("unexplained", Numeric),
    comment="every revision as it was stored; append-only",
)

items = Table(
    "items",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("org", Text, nullable=False),
    Column("group_id", _Id, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("status", Text, nullable=False, comment="pending, matched or discrepant"),
    Column("rule", Text, nullable=False),
    Column("pack", Text, nullable=False),
    Column("key", JSONB, nullable=False),
    # JSON, not JSONB, which would sort the sides: their order says which one is expected.
    Column("sides", JSON, nullable=False),
    Column("discrepancies", JSONB, nullable=False),
    Column("at", _Time, nullable=False),
    Column("occurred_at", _Time, comment="decides the period it belongs to"),
    Column("live", Boolean, nullable=False),
    Column(
        "shadow",
        Boolean,
        nullable=False,
        server_default="false",
        comment="from a rule that only watches: no alert, no report",
    ),
    Column("confidence", Text, comment="of records matched without a shared key, from 0 to 1"),
    Column("reasons", JSONB),
    Column("log_partition", Integer, nullable=False),
    Column("log_offset", BigInteger, nullable=False),
    Column("log_time", _Time, nullable=False),
    Column(
        "reopened_offset",
        BigInteger,
        comment="log offset from which the matcher repeats records of this settled item; its repeats are not stored",
    ),
    Index(None, "group_id"),
    Index(None, "org", "pack", "occurred_at"),
    Index(None, "org", "pack", "log_time"),
)

item_revisions = Table(
    "item_revisions",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("log_offset", BigInteger, primary_key=True),
    Column("revision", Integer, primary_key=True),
    Column("log_partition", Integer, nullable=False),
    Column("log_time", _Time, nullable=False),
    Column("org", Text, nullable=False),
    Column("rule", Text, nullable=False),
    Column("pack", Text, nullable=False),
    Column("key", JSONB, nullable=False),
    Column("status", Text, nullable=False),
    # JSON, not JSONB, which would sort the sides: their order says which one is expected.
    Column("sides", JSON, nullable=False),
    Column("discrepancies", JSONB, nullable=False),
    Column("at", _Time, nullable=False),
    Column("occurred_at", _Time),
    Column("live", Boolean, nullable=False),
    Column("shadow", Boolean, nullable=False, server_default="false"),
    Column("confidence", Text),
    Column("reasons", JSONB),
    comment="earlier revisions of items, the present ones stand in items; append-only; a report asks what was at a log time",
)

item_records = Table(
    "item_records",
    metadata,
    Column("record_id", _Id, primary_key=True, comment="name of org, rule, source and record"),
    Column("item_id", _Id, primary_key=True),
    Column("group_id", _Id, nullable=False),
    Column("org", Text, nullable=False),
    Column("live", Boolean, nullable=False),
    comment="which items hold a record: one that is live under two keys of a rule has moved",
)

checks = Table(
    "checks",
    metadata,
    Column("id", _Id, primary_key=True, comment="name of the topic record, so that a rebuild stores it once"),
    Column("org", Text, nullable=False),
    Column("rule", Text, nullable=False),
    Column("pack", Text, nullable=False),
    Column("key", JSONB, nullable=False),
    Column("code", Text),
    Column("result", Text, nullable=False),
    Column("currency", Text),
    Column("as_of", _Time, nullable=False),
    Column("expected", Text),
    Column("actual", Text),
    Column("difference", Numeric),
    Column("log_partition", Integer, nullable=False),
    Column("log_offset", BigInteger, nullable=False),
    Column("log_time", _Time, nullable=False),
    Column("shadow", Boolean, nullable=False, server_default="false"),
    Column("cause", Text, comment="why it is in error, or what failed it"),
    Column("explained", Numeric),
    Column("unexplained", Numeric),
    Column("entries", Integer),
    Column("entries_stated", Integer),
    Column("period", Text),
    Column("usage", Numeric),
    Column("partial", Boolean, comment="the period has no closing reading yet"),
    Index(None, "org", "rule", "as_of"),
)

action_log = Table(
    "action_log",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("org", Text, nullable=False),
    Column("discrepancy_id", _Id, nullable=False),
    Column("at", _Time, nullable=False),
    Column("actor", Text, nullable=False, comment="`key:<name>` of a person's API key, or `engine`"),
    Column("action", Text, nullable=False),
    Column("from_status", Text, nullable=False),
    Column("to_status", Text, nullable=False),
    Column("assignee", Text),
    Column("reason", Text),
    Column("notes", Text),
    Column("revision", Integer, nullable=False, comment="of the discrepancy when the action was taken"),
    Index(None, "discrepancy_id", "id"),
    comment="who did what, when and why; the database refuses UPDATE, DELETE and TRUNCATE",
)

adjustments = Table(
    "adjustments",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("org", Text, nullable=False),
    Column("discrepancy_id", _Id, nullable=False),
    Column("source", Text, nullable=False),
    Column("amount", Numeric, nullable=False, comment="signed: added to the side of its source"),
    Column("currency", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("notes", Text),
    Column("posted_by", Text, nullable=False),
    Column("event", JSONB, nullable=False, comment="the event as it was posted to the topic inbox"),
    Column("created_at", _Time, nullable=False),
    Index(None, "discrepancy_id"),
    comment="corrections: new entries that name their discrepancy; ledger rows are never touched; append-only",
)

discrepancy_news = Table(
    "discrepancy_news",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("org", Text, nullable=False),
    Column("discrepancy_id", _Id, nullable=False),
    comment="discrepancies that changed since the explainer looked; written by triggers, deleted once it has looked",
)

loose_ends = Table(
    "loose_ends",
    metadata,
    Column("discrepancy_id", _Id, primary_key=True),
    Column("org", Text, nullable=False),
    Column("pack", Text, nullable=False),
    Column("rule", Text, nullable=False),
    Column("has", Text, nullable=False, comment="side on which its record stands"),
    Column("lacks", Text, comment="side on which a record is missing; null: its record is one too many"),
    Column("seeks", ARRAY(Text), nullable=False, comment="sides on which the same money may stand"),
    Column("source", Text, nullable=False),
    Column("record", Text, nullable=False),
    Column("key", JSONB, nullable=False),
    Column("signature", Text, nullable=False, comment="of the key: equal where it is only written differently"),
    Column("amount", Numeric, nullable=False),
    # Row-level security lets no index look for a NUMERIC: comparing one may tell of it in an error. Texts and integers.
    Column("digits", Text, nullable=False, comment="the amount in its shortest form: equal for equal amounts"),
    Column("size", Integer, nullable=False, comment="magnitude and first two digits of the amount without its sign"),
    Column("currency", Text, nullable=False, comment="empty where the record has none"),
    Column("account", Text),
    Column("occurred_at", _Time, nullable=False),
    Column("pair_id", _Id, comment="the loose end that it is paired with"),
    Column("rank", JSONB, comment="orders pairs, the best first; the same on both"),
    Column("alone", Boolean, comment="paired only while nothing else of the amount is open nearby"),
    Column("near_miss", JSONB, comment="what is said about it"),
    # They begin differently, so that the planner cannot take one for another before it has statistics.
    Index("loose_ends_digits_idx", "digits", "org", "pack", "has", "currency", "occurred_at"),
    Index("loose_ends_signature_idx", "signature", "org", "pack", "has"),
    Index("loose_ends_size_idx", "size", "org", "pack", "has", "currency"),
    comment="open discrepancies whose record has nothing opposite, and their near misses; made anew from discrepancies",
)

clusters = Table(
    "clusters",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("org", Text, nullable=False),
    Column("cause", Text, nullable=False),
    Column("sentence", Text, nullable=False),
    Column("size", Integer, nullable=False),
    Column("since", _Time, nullable=False),
    Index(None, "org", "cause"),
    comment="open discrepancies that share a cause; made anew from discrepancies",
)

cluster_members = Table(
    "cluster_members",
    metadata,
    Column("discrepancy_id", _Id, primary_key=True),
    Column("org", Text, nullable=False),
    Column("cause", Text, nullable=False),
    Column("raised_at", _Time, nullable=False),
    Column("open", Boolean, nullable=False),
    Column("difference", Text, nullable=False),
    Column("cluster_id", _Id),
    Index(None, "org", "cause", "raised_at"),
    Index(None, "org", "cluster_id"),
    comment="the cause of every open discrepancy, and of those that closed while others of their cluster are open",
)

sink_offsets = Table(
    "sink_offsets",
    metadata,
    Column("topic", Text, primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("next_offset", BigInteger, nullable=False),
    Column("live_offset", BigInteger, nullable=False, server_default="0", comment="below it: a rebuild, no webhooks"),
    comment="where the sink goes on; moved only by the transaction that stored what lies before",
)

progress = Table(
    "progress",
    metadata,
    Column("topic", Text, primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("log_time", _Time, nullable=False),
    Column("log_offset", BigInteger, nullable=False),
    comment="log time up to which everything of a partition is stored; topic without prefix",
)

topic_outbox = Table(
    "topic_outbox",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("org", Text, nullable=False),
    Column("topic", Text, nullable=False, comment="without prefix: directory or inbox"),
    Column("key", LargeBinary, nullable=False),
    Column("value", LargeBinary),
    Column("created_at", _Time, nullable=False, server_default=_NOW),
    comment="records for Kafka, written with the rows they tell about; deleted once Kafka has acknowledged them",
)

runs = Table(
    "runs",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("org", Text, nullable=False),
    Column("pack", Text, nullable=False),
    Column("period_start", _Time, nullable=False),
    Column("period_end", _Time, nullable=False),
    Column("zone", Text, nullable=False),
    Column("trigger", Text, nullable=False, comment="manual, daily or schedule"),
    Column("requested_by", Text, nullable=False),
    Column("status", Text, nullable=False, comment="running, completed, incomplete or failed"),
    Column("provisional", Boolean, nullable=False),
    Column("summary", JSON),
    Column("report_json", JSON, comment="in the order of the report: rules, sides"),
    Column("report_markdown", Text),
    Column("error", Text),
    Column("cut_at", _Time, comment="time in the log at which the matcher was asked for what is still pending"),
    Column("created_at", _Time, nullable=False, server_default=_NOW),
    Column("updated_at", _Time, nullable=False, server_default=_NOW),
    Column("completed_at", _Time),
    UniqueConstraint("org", "pack", "period_start", "period_end"),
    Index(None, "org", "created_at"),
)

not_reconciled = Table(
    "not_reconciled",
    metadata,
    Column("org", Text, primary_key=True),
    Column("event_id", _Id, primary_key=True, comment="of the event; ingest may tell it twice, it counts once"),
    Column("source", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("occurred_at", _Time, nullable=False, comment="decides the period it counts in"),
    Column("received_at", _Time, nullable=False),
    Index(None, "org", "occurred_at"),
    comment="events that no rule selected when ingest read them; a rule that comes or goes later changes none",
)

dead_letters = Table(
    "dead_letters",
    metadata,
    Column("id", _Id, primary_key=True, comment="of the letter: it is stored once, however often it arrives"),
    Column("org", Text, comment="null: nobody could tell whose it is; only the scope of all organisations sees it"),
    Column("source", Text),
    Column("reason", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("hint", Text, nullable=False, comment="what to do"),
    Column("rule", Text),
    Column("event", Text, comment="the source's id of the event"),
    Column("inbox_partition", Integer, nullable=False, comment="-1: it came from no record of inbox"),
    Column("inbox_offset", BigInteger, nullable=False),
    Column("received_at", _Time, nullable=False),
    Column("raw", LargeBinary, nullable=False, comment="the first 64 KiB of the request or row as it came"),
    Column("raw_bytes", Integer, nullable=False, comment="its whole size"),
    Column("first_seen_at", _Time, nullable=False, comment="when alerts first stored it"),
    Column("state", Text, nullable=False, server_default="open", comment="open, replayed or dismissed: people's word"),
    Column("state_by", Text),
    Column("state_reason", Text),
    Column("state_at", _Time),
    Index(None, "org", "received_at", "id"),
    Index("dead_letters_open_idx", "reason", postgresql_where=text("state = 'open'")),
)

dead_letter_changes = Table(
    "dead_letter_changes",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("org", Text, nullable=False),
    Column("dead_letter_id", _Id, nullable=False),
    Column("at", _Time, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("from_state", Text, nullable=False),
    Column("to_state", Text, nullable=False),
    Column("reason", Text),
    Index(None, "dead_letter_id", "id"),
    comment="who did what with a dead letter, when and why; append-only",
)

webhook_endpoints = Table(
    "webhook_endpoints",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("org", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("secret", Text, nullable=False, comment="signing secret; only the app role reads it, no API shows it again"),
    Column("previous_secret", Text, comment="also signs until previous_until, so that receivers can change over"),
    Column("previous_until", _Time),
    Column("types", ARRAY(Text), nullable=False, server_default="{}", comment="discrepancy types; empty: all"),
    Column("severity_min", Text, nullable=False, server_default="low"),
    Column("description", Text, nullable=False, server_default=""),
    Column("created_at", _Time, nullable=False, server_default=_NOW),
    Column("disabled_at", _Time),
    Column("disabled_reason", Text),
    Index(None, "org"),
)

outbox = Table(
    "outbox",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("org", Text, nullable=False),
    Column("endpoint_id", _Id, nullable=False),
    Column("kind", Text, nullable=False, server_default="discrepancy", comment="discrepancy, storm or test"),
    Column("discrepancy_id", _Id),
    Column("revision", Integer),
    Column("log_offset", BigInteger),
    Column("message_id", Text, nullable=False, comment="webhook-id: the same in every attempt"),
    Column("type", Text, nullable=False, comment="event type in the payload, such as discrepancy.raised"),
    Column("severity", Text, nullable=False),
    Column("payload", Text, nullable=False, comment="the JSON that is signed and sent, byte for byte"),
    Column("traceparent", Text),
    Column("state", Text, nullable=False, server_default="pending", comment="pending, delivered, failed or dropped"),
    Column("reason", Text, comment="why it failed or was dropped"),
    Column("replayed_at", _Time, comment="somebody asked for it again: sent whatever came after it, and past any cap"),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("next_attempt_at", _Time, nullable=False, server_default=_NOW),
    Column("claimed_until", _Time, comment="a dispatcher works on it until then"),
    Column("created_at", _Time, nullable=False, server_default=_NOW),
    Column("finished_at", _Time),
    UniqueConstraint("endpoint_id", "discrepancy_id", "log_offset", "revision"),
    Index("outbox_due_idx", "endpoint_id", "next_attempt_at", postgresql_where=text("state = 'pending'")),
    Index(None, "endpoint_id", "created_at"),
    Index(None, "org", "id"),
    comment="messages to outgoing webhooks, written in the transaction that stored the revision they tell about",
)

delivery_attempts = Table(
    "delivery_attempts",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("outbox_id", BigInteger, nullable=False),
    Column("org", Text, nullable=False),
    Column("endpoint_id", _Id, nullable=False),
    Column("at", _Time, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("status_code", Integer),
    Column("error", Text),
    Column("duration_ms", Integer, nullable=False),
    Index(None, "outbox_id", "id"),
)

ORG_TABLES: tuple[Table, ...] = (
    orgs,
    sources,
    api_keys,
    discrepancies,
    discrepancy_revisions,
    items,
    item_revisions,
    item_records,
    checks,
    action_log,
    adjustments,
    discrepancy_news,
    loose_ends,
    clusters,
    cluster_members,
    topic_outbox,
    runs,
    not_reconciled,
    dead_letters,
    dead_letter_changes,
    webhook_endpoints,
    outbox,
    delivery_attempts,
)
"""Tables under row-level security by `org`."""

SHARED_TABLES: tuple[Table, ...] = (sink_offsets, progress)
"""Places in the topics: of no organisation."""

APPEND_ONLY_TABLES: tuple[Table, ...] = (
    discrepancy_revisions,
    item_revisions,
    action_log,
    adjustments,
    dead_letter_changes,
)
"""The database itself refuses UPDATE, DELETE and TRUNCATE on these."""
