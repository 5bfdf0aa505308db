"""Prometheus metrics: requests, their upstream calls, tokens and durations.

All label values are known in advance: enabled strategies, base models, status classes and error
codes. Other names become `other`. No label contains a prompt, a key or a client's text. Every
sample has the label `deployment`: a host may have several deployments.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from . import accounting
from .judgement import CODES
from .settings import DEPLOYMENT, FIXES

CONTENT_TYPE = CONTENT_TYPE_LATEST
OTHER = "other"
_LABELS = ("strategy", "base_model")
#: Seconds. A reasoning model takes minutes, the proxy itself milliseconds.
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
#: All outcomes of requests, upstream calls and refusals. Each counter starts at zero: rate() does
#: not see the first increment of a counter that did not exist.
_STATUSES = ("2xx", "4xx", "5xx")
_ERRORS = (
    "loop_detected",
    "upstream_call_limit",
    "upstream_rate_limited",
    "upstream_failed",
    "strategy_failed",
    "draining",
    "request_timeout",
    "client_gone",
    "answer_truncated",
    "answer_filtered",
)
_CALL_STATUSES = (*_STATUSES, "none")
_REASONS = ("connection", "timeout", "ended", "rate_limited", "4xx", "5xx")
_REFUSALS = (
    "invalid_json",
    "invalid_request",
    "parameter_not_supported",
    "strategy_prefix_required",
    "strategy_not_enabled",
    "strategy_not_loaded",
    "upstream_call_limit",
    "base_model_unknown",
    "invalid_api_key",
    "not_found",
    "trace_unknown",
    "method_not_allowed",
    "body_too_large",
    "unsupported_media_type",
    "loop_detected",
    "client_gone",
    "internal_error",
    "overloaded",
    "draining",
    "read_timeout",
    "head_too_large",
    "model_unknown",
)
_CALLS = (1, 2, 3, 4, 5, 8, 12, 16, 24, 32, 48, 64, 128)


def status_class(status: int) -> str:
    """200 -> "2xx"; 0 (no response) -> "none"."""
    return f"{status // 100}xx" if status else "none"


class _Families:
    """A collector of existing metrics."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        return self._families


def joined(expositions: Mapping[int, bytes]) -> bytes:
    """The metrics of several workers as one text. Each sample gets the label `worker`.

    They are not added up: a restarted worker counts from zero, and rate() handles that only per
    worker.
    """
    families: dict[str, Metric] = {}
    for place, text in sorted(expositions.items()):
        for family in text_string_to_metric_families(text.decode()):
            whole = families.setdefault(
                family.name, Metric(family.name, family.documentation, family.type)
            )
            whole.samples += _labelled(family, worker=str(place))
    return _text(families.values())


def _labelled(family: Metric, **labels: str) -> list[Sample]:
    """The samples of a metric, with more labels."""
    return [
        sample._replace(labels={**sample.labels, **labels})  # a Sample is a named tuple
        for sample in family.samples
    ]


def _text(families: Iterable[Metric]) -> bytes:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(families))
    return generate_latest(registry)


class _Process(ProcessCollector):
    """CPU, memory and file descriptors of the process.

    The start time is measured here: a sealed service cannot read it in /proc.
    """

    def __init__(self) -> None:
        super().__init__(registry=None)
        self._started = time.time()

    def _boot_time(self) -> float:
        """Any number but 0: with 0 the library collects nothing. Only the start time uses it."""
        return 1.0

    def collect(self) -> Iterator[Metric]:
        yield from (
            family for family in super().collect() if family.name != "process_start_time_seconds"
        )
        yield GaugeMetricFamily(
            "process_start_time_seconds", "Start of the serving process, Unix time.", self._started
        )


@dataclass(frozen=True)
class Load:
    """What runs now: the requests in flight, and the number of those that wait."""

    requests: list[accounting.Request]
    waiting: int


class _InFlight:
    """Gauges for requests and calls in flight, counted at each collection."""

    def __init__(self, meter: Meter, load: Callable[[], Load]) -> None:
        self._meter, self._load = meter, load

    def collect(self) -> Iterator[Metric]:
        requests = GaugeMetricFamily(
            "optillm_requests_in_flight", "Requests that run now.", labels=_LABELS
        )
        calls = GaugeMetricFamily(
            "optillm_upstream_calls_in_flight", "Upstream calls in flight now.", labels=_LABELS
        )
        count: dict[tuple[str, str], list[int]] = {labels: [0, 0] for labels in self._meter.known}
        load = self._load()
        for request in load.requests:
            counts = count.setdefault(self._meter.labels(request), [0, 0])
            counts[0] += 1
            counts[1] += request.open_calls
        for labels, (open_requests, open_calls) in count.items():
            requests.add_metric(labels, open_requests)
            calls.add_metric(labels, open_calls)
        yield requests
        yield calls
        yield GaugeMetricFamily("optillm_requests_waiting", "Requests in the queue.", load.waiting)


class Meter:
    """The metrics of one process.

    `deployment`: the label of every sample. `workers`: the processes that the service was started
    with.
    """

    def __init__(
        self,
        strategies: Iterable[str],
        base_models: Iterable[str],
        build: Mapping[str, str],
        load: Callable[[], Load] = lambda: Load([], 0),
        *,
        deployment: str = DEPLOYMENT,
        workers: int = 1,
    ) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._deployment = deployment
        self.known = {
            (strategy, base_model) for base_model in base_models for strategy in strategies
        }
        registry = self._registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Any:
            # cache the children: prometheus_client's lookup costs as much as the count itself
            return cache(Counter(name, text, labels, registry=registry).labels)

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Any:
            return cache(Histogram(name, text, _LABELS, buckets=buckets, registry=registry).labels)

        self._requests = counter(
            "optillm_requests", "Requests that ran a strategy.", *_LABELS, "status"
        )
        self._errors = counter(
            "optillm_request_errors", "Failed requests, by error code.", *_LABELS, "code"
        )
        self._refusals = counter(
            "optillm_refusals", "Requests that the guard refused, by error code.", "code"
        )
        self._seconds = histogram(
            "optillm_request_duration_seconds", "Duration of requests with a strategy.", _SECONDS
        )
        self._amplification = histogram(
            "optillm_upstream_calls_per_request", "Upstream calls of each request.", _CALLS
        )
        self._calls = counter(
            "optillm_upstream_calls", "Upstream calls that ended.", *_LABELS, "status"
        )
        self._failures = counter(
            "optillm_upstream_failures", "Failed upstream calls, by reason.", *_LABELS, "reason"
        )
        self._call_seconds = histogram(
            "optillm_upstream_call_duration_seconds", "Duration of upstream calls.", _SECONDS
        )
        self._tokens = counter(
            "optillm_upstream_tokens", "Tokens that the upstream reports.", *_LABELS, "kind"
        )
        self._degraded = counter(
            "optillm_degraded",
            "Requests whose strategy lost its effect or a part of it, by code.",
            *_LABELS,
            "code",
        )
        self._fixed = counter(
            "optillm_fixed", "Requests in which a fix acted, by fix.", *_LABELS, "fix"
        )
        self._loops = Counter(
            "optillm_loops_broken", "Routing loops that the guard ended.", registry=registry
        )
        Info("optillm_build", "Versions of OptiLLM, guard and release.", registry=registry).info(
            dict(build)
        )
        Gauge(
            "optillm_workers", "Processes that the service was started with.", registry=registry
        ).set(workers)
        registry.register(_Process())
        registry.register(_InFlight(self, load))
        zeros = (
            (self._requests, _STATUSES),
            (self._errors, _ERRORS),
            (self._calls, _CALL_STATUSES),
            (self._failures, _REASONS),
            (self._tokens, ("prompt", "completion")),
            (self._degraded, tuple(CODES)),
            (self._fixed, FIXES),
        )
        for labels in self.known:
            for counted, words in zeros:
                for word in words:
                    counted(*labels, word)
            for histogram_of in (self._seconds, self._amplification, self._call_seconds):
                histogram_of(*labels)
        for code in _REFUSALS:
            self._refusals(code)

    def labels(self, request: accounting.Request) -> tuple[str, str]:
        """The labels strategy and base model. `other` for names that are not configured."""
        labels = request.strategy, request.base_model
        return labels if labels in self.known else (OTHER, OTHER)

    def call_ended(self, request: accounting.Request, call: accounting.Call) -> None:
        """Count an upstream call. It may end after its request."""
        labels = self.labels(request)
        self._calls(*labels, status_class(call.status)).inc()
        self._call_seconds(*labels).observe(call.seconds)
        if call.failed:
            self._failures(*labels, call.reason).inc()
        if call.prompt_tokens:
            self._tokens(*labels, "prompt").inc(call.prompt_tokens)
        if call.completion_tokens:
            self._tokens(*labels, "completion").inc(call.completion_tokens)

    def request_ended(self, request: accounting.Request, status: int, code: str) -> None:
        """Count a request that ran a strategy. `code`: its error code, or ""."""
        labels = self.labels(request)
        self._requests(*labels, status_class(status)).inc()
        self._seconds(*labels).observe(request.seconds)
        self._amplification(*labels).observe(len(request.calls))
        if code:
            self._errors(*labels, code).inc()
        for found in request.judgement.codes if request.judgement else ():
            self._degraded(*labels, found).inc()
        for fix in request.fixed:
            self._fixed(*labels, fix).inc()

    def refused(self, code: str) -> None:
        """Count a refused request."""
        self._refusals(code).inc()
        if code == "loop_detected":
            self._loops.inc()

    def exposition(self) -> bytes:
        """The metrics in Prometheus' text format."""
        families = list(self._registry.collect())
        for family in families:
            family.samples = _labelled(family, deployment=self._deployment)
        return _text(families)
