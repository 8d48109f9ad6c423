"""The instruments of the catalogue, and their text for `/metrics`.

An instrument is made at its first use, so a service shows its own metrics only. In a hot loop take the labelled child
once (`counter(...).labels(...)`) and keep it.
"""

from functools import cache
from typing import Final, TypeVar

from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder

from shared.telemetry.catalogue import METRICS, Metric

Instrument = Counter | Gauge | Histogram

LABEL_VALUES_MAX: Final = 200
"""Different values of one label that comes from outside; each is a time series that lives as long as the process."""
OTHER: Final = "other"

_BY_NAME: Final[dict[str, Metric]] = {declared.name: declared for declared in METRICS}
_I = TypeVar("_I", Counter, Gauge, Histogram)


class UnknownMetric(LookupError):
    """The catalogue has no metric of this name, or it has another kind."""


@cache
def metric(name: str) -> Instrument:
    """The instrument of a declared metric; the same one each time.

    Raises:
        UnknownMetric: it is not in `shared/telemetry/catalogue.py`.
    """
    declared = _BY_NAME.get(name)
    if declared is None:
        raise UnknownMetric(f"{name} is not declared in shared/telemetry/catalogue.py")
    match declared.kind:
        case "counter":
            return Counter(name, declared.meaning, declared.labels)
        case "gauge":
            return Gauge(name, declared.meaning, declared.labels)
        case "histogram":
            return Histogram(name, declared.meaning, declared.labels, buckets=declared.buckets)


def counter(name: str) -> Counter:
    """`metric(name)` that must be a counter."""
    return _of_kind(name, Counter)


def gauge(name: str) -> Gauge:
    """`metric(name)` that must be a gauge."""
    return _of_kind(name, Gauge)


def histogram(name: str) -> Histogram:
    """`metric(name)` that must be a histogram."""
    return _of_kind(name, Histogram)


def _of_kind(name: str, kind: type[_I]) -> _I:
    instrument = metric(name)
    if not isinstance(instrument, kind):
        raise UnknownMetric(f"{name} is a {type(instrument).__name__.lower()}, not a {kind.__name__.lower()}")
    return instrument


_values_seen: Final[dict[str, set[str]]] = {}


def bounded(label: str, value: str) -> str:
    """`value` for a label whose values come from outside, such as an event type; `other` once there are too many."""
    seen = _values_seen.setdefault(label, set())
    if value in seen:
        return value
    if len(seen) >= LABEL_VALUES_MAX:
        return OTHER
    seen.add(value)
    return value


def render_metrics(accept: str = "") -> tuple[bytes, str]:
    """Body and content type for `/metrics`, in the format that the scraper's `Accept` header asks for."""
    encode, content_type = choose_encoder(accept)
    return encode(REGISTRY), content_type
