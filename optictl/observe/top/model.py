"""One screen from two snapshots of a running service.

Pure. Times are in seconds, memory in bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from optictl.host.systemd import Unit

#: The guard's counters -> the fields of Counts.
_COUNTERS = {
    "optillm_requests_total": "requests",
    "optillm_upstream_calls_total": "calls",
    "optillm_upstream_failures_total": "failures",
    "optillm_upstream_tokens_total": "tokens",
}
_BUCKETS = "optillm_upstream_call_duration_seconds_bucket"


@dataclass(frozen=True)
class Counts:
    """What a worker of the guard counted since it started, or within a period, by strategy.

    `buckets` maps an upper bound to the number of calls that took at most that long.
    """

    requests: dict[str, float] = field(default_factory=dict)
    failed: dict[str, float] = field(default_factory=dict)
    calls: dict[str, float] = field(default_factory=dict)
    failures: dict[str, float] = field(default_factory=dict)
    tokens: dict[str, float] = field(default_factory=dict)
    refusals: float = 0.0
    buckets: dict[float, float] = field(default_factory=dict)
    memory: float | None = None


@dataclass(frozen=True)
class Snapshot:
    """The state of the service at one time.

    `at`: monotonic time. `problem`: why the guard did not report its state, or "". `state`: the
    answer of /guard/state. `counts`: by worker ("" if there is only one). `unit`: None if systemd
    does not manage the deployment.
    """

    at: float
    problem: str = ""
    state: Mapping[str, Any] = field(default_factory=dict)
    counts: Mapping[str, Counts] = field(default_factory=dict)
    unit: Unit | None = None


@dataclass(frozen=True)
class Rates:
    """The rates of one strategy per minute; None before there are two snapshots."""

    strategy: str
    in_flight: int
    requests: float | None
    failed: float | None
    calls: float | None
    tokens: float | None


@dataclass(frozen=True)
class InFlight:
    """A request in flight."""

    trace: str
    model: str
    age: float
    calls: int
    waiting: int


@dataclass(frozen=True)
class Screen:
    """Everything that a screen shows.

    `seconds`: the period of the rates. `p50`, `p95`: durations of upstream calls that ended in it.
    """

    state: str
    ready: bool
    problem: str
    uptime: float | None
    restarts: int | None
    memory: float | None
    seconds: float
    total: Rates
    rates: list[Rates]
    refused: float | None
    upstream_failed: float | None
    p50: float | None
    p95: float | None
    in_flight: list[InFlight]
    queued: int | None
    max_in_flight: int | None
    workers: int | None
    workers_wanted: int | None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def parse(text: str) -> dict[str, Counts]:
    """The guard's metrics, by worker.

    Raises:
        ValueError: the text is not in the metrics format.
    """
    from prometheus_client.parser import text_string_to_metric_families

    found: dict[str, Counts] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            worker = sample.labels.get("worker", "")
            counts = found.setdefault(worker, Counts())
            if kind := _COUNTERS.get(sample.name):
                strategy = sample.labels.get("strategy", "")
                failed = kind == "requests" and sample.labels.get("status") != "2xx"
                for name in (kind, "failed") if failed else (kind,):
                    counted = getattr(counts, name)
                    counted[strategy] = counted.get(strategy, 0) + sample.value
            elif sample.name == _BUCKETS:
                bound = float(sample.labels["le"])
                counts.buckets[bound] = counts.buckets.get(bound, 0) + sample.value
            elif sample.name == "optillm_refusals_total":
                found[worker] = replace(counts, refusals=counts.refusals + sample.value)
            elif sample.name == "process_resident_memory_bytes":
                found[worker] = replace(counts, memory=sample.value)
    return found


def grown(before: Mapping[str, Counts], now: Mapping[str, Counts]) -> Counts:
    """What all workers counted between two snapshots, without `memory`.

    A worker that counts less than before was restarted: all its counts are new. A worker that was
    not in the first snapshot is left out, because it is unknown how many of its counts are new.
    """
    total = Counts()
    refusals = 0.0
    for worker in now.keys() & before.keys():
        old, new = before[worker], now[worker]
        refusals += new.refusals - old.refusals if new.refusals >= old.refusals else new.refusals
        restarted = any(count < old.buckets.get(bound, 0) for bound, count in new.buckets.items())
        for bound, count in new.buckets.items():
            earlier_calls = 0 if restarted else old.buckets.get(bound, 0)
            total.buckets[bound] = total.buckets.get(bound, 0) + count - earlier_calls
        for kind in ("requests", "failed", "calls", "failures", "tokens"):
            before_counts, summed = getattr(old, kind), getattr(total, kind)
            for strategy, count in getattr(new, kind).items():
                earlier = before_counts.get(strategy, 0)
                summed[strategy] = summed.get(strategy, 0) + (
                    count - earlier if count >= earlier else count
                )
    return replace(total, refusals=refusals)


def quantile(buckets: Mapping[float, float], share: float) -> float | None:
    """A quantile of a histogram, or None without samples. As Prometheus' histogram_quantile:

    linear within a bucket; beyond the last bound, that bound.
    """
    bounds = sorted(buckets)
    cumulative = [buckets[bound] for bound in bounds]
    if not bounds or cumulative[-1] <= 0:
        return None
    rank, below, low = share * cumulative[-1], 0.0, 0.0
    for bound, count in zip(bounds, cumulative, strict=True):
        if count >= rank:
            inside = count - below
            return (
                low
                if bound == float("inf")
                else low + (bound - low) * ((rank - below) / inside if inside else 1.0)
            )
        below, low = count, bound
    return low


def screen(before: Snapshot | None, now: Snapshot) -> Screen:
    """The screen of `now`.

    Rates are since `before`; None without it, or if a snapshot has a problem.
    """
    waiting = _waiting(now.state)
    rated = before is not None and not before.problem and not now.problem and now.at > before.at
    seconds = now.at - before.at if before is not None and rated else 0.0
    new = grown(before.counts, now.counts) if before is not None and rated else Counts()

    def per_minute(count: float) -> float | None:
        return round(60 * count / seconds, 2) if rated else None

    def rates(strategy: str, count: int) -> Rates:
        kinds = (new.requests, new.failed, new.calls, new.tokens)
        return Rates(strategy, count, *(per_minute(counted.get(strategy, 0)) for counted in kinds))

    counted = {strategy: None for counts in now.counts.values() for strategy in counts.requests}
    memories = [counts.memory for counts in now.counts.values() if counts.memory is not None]
    known = now.state.get("strategies")
    names = list(
        dict.fromkeys(
            [*(known if isinstance(known, list) else ()), *counted, *(s for _, s in waiting)]
        )
    )
    each = [rates(name, sum(strategy == name for _, strategy in waiting)) for name in names]
    reported = now.state.get("workers")
    workers = reported if isinstance(reported, dict) else {}
    unit = now.unit
    state = (
        f"{unit.active_state} ({unit.sub_state})"
        if unit
        else "not answering"
        if now.problem
        else "running"
    )
    memory = unit.memory_current if unit else None
    uptime = now.state.get("uptime")
    return Screen(
        state=state,
        ready=not now.problem and bool(now.state.get("ready")),
        problem=now.problem,
        uptime=float(uptime) if isinstance(uptime, int | float) else None,
        restarts=unit.restarts if unit else None,
        memory=float(memory) if memory is not None else sum(memories) if memories else None,
        seconds=round(seconds, 1),
        total=Rates(
            "all",
            len(waiting),
            *(
                _sum(each, kind) if rated else None
                for kind in ("requests", "failed", "calls", "tokens")
            ),
        ),
        rates=each,
        refused=per_minute(new.refusals),
        upstream_failed=per_minute(sum(new.failures.values())),
        p50=quantile(new.buckets, 0.5) if rated else None,
        p95=quantile(new.buckets, 0.95) if rated else None,
        in_flight=[w for w, _ in sorted(waiting, key=lambda pair: -pair[0].age)],
        queued=_whole(now.state.get("waiting")),
        max_in_flight=_whole(now.state.get("max_in_flight")),
        workers=_whole(workers.get("serving")),
        workers_wanted=_whole(workers.get("wanted")),
    )


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) else None


def _sum(each: list[Rates], kind: str) -> float:
    return round(sum(getattr(one, kind) or 0 for one in each), 2)


def _waiting(state: Mapping[str, Any]) -> list[tuple[InFlight, str]]:
    """The requests in flight, each with its strategy."""
    given = state.get("in_flight")
    return [
        (
            InFlight(
                str(one.get("trace", "")),
                f"{one.get('strategy')}-{one.get('base_model')}",
                float(one.get("age") or 0),
                int(one.get("upstream_calls") or 0),
                int(one.get("upstream_open") or 0),
            ),
            str(one.get("strategy")),
        )
        for one in (given if isinstance(given, list) else ())
        if isinstance(one, dict)
    ]
