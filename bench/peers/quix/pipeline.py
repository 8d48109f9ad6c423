"""The join that tieout's matcher does, as Quix Streams does it, exactly once: by keyed state, or by its interval join.

Runs in an environment of its own (requirements.txt). Writes `first` to standard output when it sees the first record and
runs until it is terminated.
"""

import argparse
import sys
from decimal import Decimal
from typing import Any

import msgspec
from quixstreams import Application
from quixstreams.models import Deserializer, TopicConfig

TAG_OF_A_LEG = 0
TAG, SIDE, RECEIVED_AT, AMOUNT = 0, 2, 9, 12
"""Places in the msgpack array of a leg."""

_decode = msgspec.msgpack.Decoder().decode


class LegDeserializer(Deserializer):
    """A version byte, then a msgpack array with its tag first."""

    def __call__(self, value: bytes, ctx: Any) -> dict[str, Any]:
        fields = _decode(value[1:])
        if fields[TAG] != TAG_OF_A_LEG:
            return {"side": None}
        return {"side": fields[SIDE], "amount": fields[AMOUNT], "at": fields[RECEIVED_AT]}


class _First:
    told = False

    def __call__(self, _value: Any) -> None:
        if not self.told:
            self.told = True
            print("first", flush=True)


def received_at(value: Any, _headers: Any, timestamp: int, _kind: Any) -> int:
    """Time is what ingest has stamped, as in tieout; control records keep the broker's."""
    return value["at"] if value["side"] is not None else 0


def verdict(expected: str, actual: str) -> str:
    """Compare two amounts."""
    difference = Decimal(actual) - Decimal(expected)
    return f"mismatch {difference}" if difference else "match"


def judge(value: dict[str, Any], state: Any) -> str | None:
    """Keep the first leg of a key; judge with the second and forget both."""
    kept = state.get("leg")
    if kept is None:
        state.set("leg", value)
        return None
    state.delete("leg")
    expected, actual = (kept, value) if value["side"] else (value, kept)
    return verdict(expected["amount"], actual["amount"])


def _is_leg(value: dict[str, Any]) -> bool:
    return value["side"] is not None


def stateful(application: Application, options: argparse.Namespace, config: TopicConfig) -> None:
    """Both sides in one topic, one state per key."""
    source = _topic(application, options.source[0], config)
    target = application.topic(options.target, key_serializer="bytes", value_serializer="string", config=config)
    legs = application.dataframe(source).update(_First()).filter(_is_leg)
    legs.apply(judge, stateful=True).filter(lambda value: value is not None).to_topic(target)


def interval_join(application: Application, options: argparse.Namespace, config: TopicConfig) -> None:
    """A topic per side: Quix Streams does not join a topic with itself."""
    internal, provider = (_topic(application, name, config) for name in options.source)
    target = application.topic(options.target, key_serializer="bytes", value_serializer="string", config=config)
    first = _First()
    left = application.dataframe(internal).update(first).filter(_is_leg)
    right = application.dataframe(provider).update(first).filter(_is_leg)
    window_ms = options.window_seconds * 1000
    joined = left.join_interval(
        right, how="inner", on_merge=lambda left, right: verdict(left["amount"], right["amount"]),
        grace_ms=window_ms, backward_ms=window_ms, forward_ms=window_ms,
    )  # fmt: skip
    joined.to_topic(target)


def _topic(application: Application, name: str, config: TopicConfig) -> Any:
    return application.topic(
        name,
        key_deserializer="bytes",
        value_deserializer=LegDeserializer(),
        timestamp_extractor=received_at,
        config=config,
    )


def main() -> None:
    """Run the pipeline that is asked for."""
    options = argparse.ArgumentParser()
    options.add_argument("pipeline", choices=["stateful", "interval-join"])
    options.add_argument("--broker", required=True)
    options.add_argument("--source", required=True, action="append")
    options.add_argument("--target", required=True)
    options.add_argument("--group", required=True)
    options.add_argument("--partitions", type=int, required=True)
    options.add_argument("--state", required=True)
    options.add_argument("--window-seconds", type=int, required=True)
    options.add_argument("--commit-seconds", type=float, required=True)
    asked = options.parse_args()
    application = Application(
        broker_address=asked.broker,
        consumer_group=asked.group,
        auto_offset_reset="earliest",
        commit_interval=asked.commit_seconds,
        processing_guarantee="exactly-once",
        state_dir=asked.state,
        loglevel="ERROR",
    )
    config = TopicConfig(num_partitions=asked.partitions, replication_factor=1)
    (stateful if asked.pipeline == "stateful" else interval_join)(application, asked, config)
    application.run()


if __name__ == "__main__":
    sys.exit(main())
