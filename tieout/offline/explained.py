"""What a replay says beside its discrepancies: near misses and clusters, by the same pure functions as alerts."""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from services.alerts.domain.cluster import clusters
from services.alerts.domain.near_miss import near_misses
from shared.contracts.discrepancy import Discrepancy
from shared.contracts.near_miss import Cluster, NearMiss

_encode = msgspec.json.Encoder().encode


class Explained(NamedTuple):
    """What is said about discrepancies as they stand at the end, by id."""

    near_misses: dict[str, NearMiss]
    clusters: dict[str, Cluster]
    revisions: dict[str, int]
    """The last revision of each: of an earlier one nothing is said."""

    def near_miss(self, found: Discrepancy) -> NearMiss | None:
        """Return the near miss of a last revision."""
        return self.near_misses.get(found.id) if self.revisions.get(found.id) == found.revision else None

    def sentence(self, found: Discrepancy) -> str:
        """Return the explanation, with the near miss where there is one."""
        near_miss = self.near_miss(found)
        return found.explanation if near_miss is None else f"{found.explanation} {near_miss.sentence}"

    def line(self, found: Discrepancy) -> bytes:
        """Return the discrepancy as JSON; `near_miss` and `cluster` stand in it where there is one."""
        line = _encode(found)
        near_miss = self.near_miss(found)
        cluster = self.clusters.get(found.id) if self.revisions.get(found.id) == found.revision else None
        for name, said in ((b"near_miss", near_miss), (b"cluster", cluster)):
            if said is not None:
                line = line[:-1] + b',"' + name + b'":' + _encode(said) + b"}"
        return line


def explain(revisions: Sequence[Discrepancy]) -> Explained:
    """Look at everything as it stands at the end of a replay."""
    last = {found.id: found for found in revisions}
    return Explained(
        near_misses=near_misses(last.values()),
        clusters=clusters(revisions),
        revisions={found.id: found.revision for found in last.values()},
    )
