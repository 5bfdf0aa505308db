"""One screen from two snapshots of a running service.

Pure. Times are in seconds, memory in bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from optictl.facts.guard_state import GuardState, RequestInFlight
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

    `buckets` maps an upper bound to the number of calls that took at most that long. `started`:
    the start of its process, Unix time; it tells processes apart that answer in turn.
    """

    requests: dict[str, float] = field(default_factory=dict)
    failed: dict[str, float] = field(default_factory=dict)
    calls: dict[str, float] = field(default_factory=dict)
    failures: dict[str, float] = field(default_factory=dict)
    tokens: dict[str, float] = field(default_factory=dict)
    refusals: float = 0.0
    buckets: dict[float, float] = field(default_factory=dict)
    memory: float | None = None
    started: float | None = None


@dataclass(frozen=True)
class Snapshot:
    """The state of the service at one time.

    `at`: monotonic time. `problem`: why the guard did not report its state, or "". `counts`: by
    worker ("" if there is only one). `unit`: the service, None if systemd does not manage the
    deployment. `others`: its other units that exist, the sibling of a restart among them.
    """

    at: float
    problem: str = ""
    state: GuardState | None = None
    counts: Mapping[str, Counts] = field(default_factory=dict)
    unit: Unit | None = None
    others: tuple[Unit, ...] = ()


@dataclass(frozen=True)
class Rates:
    """The rates of one strategy per minute; None before there are two snapshots.

    `degraded`: requests without effect, of the last `judged` ones. None if the guard is older.
    """

    strategy: str
    in_flight: int
    requests: float | None
    failed: float | None
    calls: float | None
    tokens: float | None
    judged: int | None = None
    degraded: int | None = None


@dataclass(frozen=True)
class InFlight:
    """A request in flight."""

    trace: str
    model: str
    age: float
    calls: int
    waiting: int


@dataclass(frozen=True)
class UnitLine:
    """A unit, and what it says of itself."""

    name: str
    state: str
    doing: str = ""


@dataclass(frozen=True)
class Screen:
    """Everything that a screen shows.

    `restarts`, `memory`: of all units together. `seconds`: the period of the rates. `p50`, `p95`:
    durations of upstream calls that ended in it. They are estimates: within a bucket of the guard's
    histogram the durations count as evenly spread. One that is `last_bucket` is longer than that.
    `units`: every unit that exists. `noted`: those
    that a person must see: the sibling of a restart, the service beside it, units that failed.
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
    last_bucket: float | None = None
    units: list[UnitLine] = field(default_factory=list)
    noted: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def parse(text: str) -> dict[str, Counts]:
    """The guard's metrics, by worker.

    Raises:
        ValueError: the text is not in the metrics format.
    """
    from prometheus_client.parser import text_string_to_metric_families

    by_worker: dict[str, Counts] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            worker = sample.labels.get("worker", "")
            counts = by_worker.setdefault(worker, Counts())
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
                by_worker[worker] = replace(counts, refusals=counts.refusals + sample.value)
            elif sample.name == "process_resident_memory_bytes":
                by_worker[worker] = replace(counts, memory=sample.value)
            elif sample.name == "process_start_time_seconds":
                by_worker[worker] = replace(counts, started=sample.value)
    return by_worker


def grown(before: Mapping[str, Counts], now: Mapping[str, Counts]) -> Counts:
    """What all workers counted between two snapshots, without `memory`.

    A worker that counts less than before, or that started later, was restarted: all its counts are
    new. A worker that was not in the first snapshot is left out, because it is unknown how many of
    its counts are new; so is one that started earlier: during a restart two processes answer.
    """
    total = Counts()
    refusals = 0.0
    for worker in now.keys() & before.keys():
        old, new = before[worker], now[worker]
        if old.started is not None and new.started is not None and old.started != new.started:
            if new.started < old.started:
                continue
            old = Counts()
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
    state, unit = now.state, now.unit
    in_flight = state.in_flight if state else ()
    since = _since(before, now)
    rates = _rates(now, in_flight, since)
    workers = state.workers if state else None
    every = (*([unit] if unit else []), *now.others)
    return Screen(
        state=_service_state(now),
        ready=not now.problem and state is not None and state.ready,
        problem=now.problem,
        uptime=state.uptime if state else None,
        restarts=sum(each.restarts for each in every) if unit else None,
        memory=_memory(now),
        seconds=round(since.seconds, 1),
        total=_total(rates, len(in_flight), is_known=bool(since.seconds)),
        rates=rates,
        refused=since.per_minute(since.new.refusals),
        upstream_failed=since.per_minute(sum(since.new.failures.values())),
        p50=quantile(since.new.buckets, 0.5) if since.seconds else None,
        p95=quantile(since.new.buckets, 0.95) if since.seconds else None,
        last_bucket=max((b for b in since.new.buckets if b != float("inf")), default=None),
        in_flight=[_shown(request) for request in sorted(in_flight, key=lambda r: -r.age)],
        queued=state.waiting if state else None,
        max_in_flight=state.max_in_flight if state else None,
        workers=workers.serving if workers else None,
        workers_wanted=workers.wanted if workers else None,
        units=[UnitLine(each.name, _unit_state(each), _doing(each)) for each in every],
        noted=_noted(every),
    )


def _noted(units: Sequence[Unit]) -> list[str]:
    """The names of the units that a person must see, the service first if it is beside a sibling.

    A sibling serves while the service drains.
    """
    siblings = [unit for unit in units[1:] if unit.active and unit.name.endswith("-next.service")]
    shown = [*units[:1], *siblings] if siblings else []
    shown += [unit for unit in units[1:] if unit.active_state == "failed" and unit not in shown]
    return [unit.name for unit in shown]


def _unit_state(unit: Unit) -> str:
    return f"{unit.active_state} ({unit.sub_state})"


def _doing(unit: Unit) -> str:
    """The status of a unit; systemd keeps the last one of a stopped unit."""
    return unit.status_text if unit.main_pid else ""


@dataclass(frozen=True)
class _Since:
    """What was counted since the last snapshot, in how many seconds. 0 seconds: not known."""

    seconds: float = 0.0
    new: Counts = field(default_factory=Counts)

    def per_minute(self, count: float) -> float | None:
        return round(60 * count / self.seconds, 2) if self.seconds else None


def _since(before: Snapshot | None, now: Snapshot) -> _Since:
    if before is None or before.problem or now.problem or now.at <= before.at:
        return _Since()
    return _Since(now.at - before.at, grown(before.counts, now.counts))


def _rates(now: Snapshot, in_flight: Sequence[RequestInFlight], since: _Since) -> list[Rates]:
    """The rates of every strategy that is enabled, was counted or is in flight."""
    known = now.state.strategies if now.state else ()
    counted = [strategy for counts in now.counts.values() for strategy in counts.requests]
    names = dict.fromkeys([*known, *counted, *(request.strategy for request in in_flight)])
    return [_of_strategy(name, now, in_flight, since) for name in names]


def _of_strategy(
    name: str, now: Snapshot, in_flight: Sequence[RequestInFlight], since: _Since
) -> Rates:
    judged, degraded = _effect(now, name)
    new = since.new
    return Rates(
        strategy=name,
        in_flight=sum(request.strategy == name for request in in_flight),
        requests=since.per_minute(new.requests.get(name, 0)),
        failed=since.per_minute(new.failed.get(name, 0)),
        calls=since.per_minute(new.calls.get(name, 0)),
        tokens=since.per_minute(new.tokens.get(name, 0)),
        judged=judged,
        degraded=degraded,
    )


def _effect(now: Snapshot, strategy: str) -> tuple[int | None, int | None]:
    """The last judged requests of a strategy on all base models, and those without effect."""
    if now.state is None or now.state.effect is None:
        return None, None
    own = [each for each in now.state.effect if each.strategy == strategy]
    return sum(each.requests for each in own), sum(each.degraded for each in own)


def _total(rates: Sequence[Rates], in_flight: int, *, is_known: bool) -> Rates:
    def rate(kind: str) -> float | None:
        summed = sum(getattr(strategy, kind) or 0 for strategy in rates)
        return round(summed, 2) if is_known else None

    judged = [strategy.judged for strategy in rates if strategy.judged is not None]
    return Rates(
        strategy="all",
        in_flight=in_flight,
        requests=rate("requests"),
        failed=rate("failed"),
        calls=rate("calls"),
        tokens=rate("tokens"),
        judged=sum(judged) if judged else None,
        degraded=sum(strategy.degraded or 0 for strategy in rates) if judged else None,
    )


def _service_state(now: Snapshot) -> str:
    if now.unit:
        return _unit_state(now.unit)
    return "not answering" if now.problem else "running"


def _memory(now: Snapshot) -> float | None:
    """The memory of all units as systemd counts it; without that, the memory of the processes."""
    if now.unit and now.unit.memory_current is not None:
        of_others = (each.memory_current or 0 for each in now.others)
        return float(now.unit.memory_current + sum(of_others))
    memories = [counts.memory for counts in now.counts.values() if counts.memory is not None]
    return sum(memories) if memories else None


def _shown(request: RequestInFlight) -> InFlight:
    return InFlight(
        request.trace,
        f"{request.strategy}-{request.base_model}",
        request.age,
        request.upstream_calls,
        request.upstream_open,
    )
