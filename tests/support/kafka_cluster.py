"""Several brokers that are one cluster: any of them can be killed."""

import contextlib
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

from tests.support import servers
from tieout.local.kafka_jvm import JvmKafka, fetch_jars
from tieout.local.places import free_ports

REPLICATED = {
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
    "offsets.topic.replication.factor": "3",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
    "broker.session.timeout.ms": "6000",
}


@contextlib.contextmanager
def three_brokers(folder: Path) -> Iterator[list[JvmKafka]]:
    """Three nodes, each broker and controller, every partition on all of them."""
    jars = fetch_jars()
    ports = [free_ports(2) for _ in range(3)]
    voters = ",".join(f"{number}@127.0.0.1:{controller}" for number, (_, controller) in enumerate(ports, 1))
    brokers = []
    with contextlib.ExitStack() as stack:
        # A cluster has one id, and each node draws one.
        stack.enter_context(mock.patch("tieout.local.kafka_jvm.uuid.uuid4", return_value=uuid.uuid4()))
        for number, own in enumerate(ports, 1):
            properties = REPLICATED | {"node.id": str(number), "controller.quorum.voters": voters}
            broker = JvmKafka(folder / f"node-{number}", properties)
            broker._ports = own
            broker.data_dir.mkdir(parents=True)
            broker._format(jars)
            brokers.append(broker)
    try:
        with ThreadPoolExecutor(3) as threads:
            list(threads.map(JvmKafka.start, brokers))
        with contextlib.ExitStack() as stack:
            for broker in brokers:
                stack.enter_context(servers.remembered(broker.pid))
            yield brokers
    finally:
        for broker in brokers:
            broker.kill()
