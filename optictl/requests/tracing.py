"""The trace of one request: the purpose, times, tokens and status of each upstream call.

Times are in seconds; a call's start counts from the start of the request.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from optictl import records
from optictl.deployment import render
from optictl.deployment.config import Config
from optictl.deployment.paths import Paths
from optictl.errors import MissingFact, NoTrace
from optictl.facts import guard_state
from optictl.host import files, network
from optictl.host.network import Response
from optictl.proof import effect, evidence

#: The header with which a client requests prompts and answers in the trace.
CONTENT_HEADERS = {"x-optillm-trace-content": "1"}


@dataclass(frozen=True)
class Call:
    """One upstream call.

    `seconds` is None if the call was still open. `status` 0 means no answer; `error` says why.
    `codes`: what kept this call from its part in the strategy's effect.
    """

    purpose: str
    model: str
    start: float
    seconds: float | None
    status: int
    error: str
    completions: int
    prompt_tokens: int
    completion_tokens: int
    codes: tuple[str, ...] = ()
    messages: list[dict[str, Any]] | None = None
    answers: list[Any] | None = None

    @property
    def failed(self) -> bool:
        return not 200 <= self.status < 300

    @property
    def outcome(self) -> str:
        """The status, or why there is none."""
        return str(self.status or self.error or "no answer")


@dataclass(frozen=True)
class Times:
    """Where the seconds of a request went.

    `parallel`: with several calls open, `serial`: with one, `none`: with none. `calls`: the sum of
    all calls, what they would take one after the other.
    """

    parallel: float
    serial: float
    none: float
    calls: float


@dataclass(frozen=True)
class Trace:
    """A request and its upstream calls, in the order of their starts.

    `effect`: full, weak, none, or "" if it was not judged. `degraded`: the codes of all that was
    lost. `fixed`: the fixes that acted. `traceparent`: the W3C trace that the client sent, or "".
    """

    trace: str
    strategy: str
    base_model: str
    seconds: float
    status: int
    code: str
    prompt_tokens: int
    completion_tokens: int
    calls: tuple[Call, ...]
    effect: str = ""
    degraded: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()
    traceparent: str = ""
    messages: list[dict[str, Any]] | None = None
    answers: list[Any] | None = None

    @property
    def span(self) -> float:
        """Seconds from the start of the request to its end or that of its last call, if later."""
        return max([self.seconds, *(c.start + (c.seconds or 0.0) for c in self.calls)], default=0.0)

    def lasted(self, call: Call) -> float:
        """How long a call was open; for an open call, until the end of the span."""
        return self.span - call.start if call.seconds is None else call.seconds

    @property
    def at_once(self) -> int:
        """The largest number of calls that were open at the same time."""
        ends = [(c.start + self.lasted(c), -1) for c in self.calls]
        open_calls, most = 0, 0
        # at the same instant, ends sort before starts
        for _, step in sorted([*((c.start, 1) for c in self.calls), *ends]):
            open_calls += step
            most = max(most, open_calls)
        return most

    @property
    def time(self) -> Times:
        """How long several calls were open, one, and none."""
        edges = sorted(
            [
                *((call.start, 1) for call in self.calls),
                *((call.start + self.lasted(call), -1) for call in self.calls),
            ]
        )
        none = parallel = serial = at = 0.0
        count = 0
        for place, step in [*edges, (self.span, 0)]:
            length = max(0.0, place - at)
            if count > 1:
                parallel += length
            elif count == 1:
                serial += length
            else:
                none += length
            at, count = max(at, place), count + step
        return Times(parallel, serial, none, sum(map(self.lasted, self.calls)))

    def without_content(self) -> Trace:
        """The same without prompts and answers."""
        calls = tuple(replace(call, messages=None, answers=None) for call in self.calls)
        return replace(self, calls=calls, messages=None, answers=None)

    def as_dict(self) -> dict[str, Any]:
        """The JSON shape: all fields; prompts and answers only if the trace contains them."""

        def present(fields: list[tuple[str, Any]]) -> dict[str, Any]:
            return {
                name: list(value) if isinstance(value, tuple) else value
                for name, value in fields
                if value is not None or name not in ("messages", "answers")
            }

        return asdict(self, dict_factory=present)


def parse(data: object) -> Trace:
    """The guard's answer as a trace. Unknown fields are ignored.

    Raises:
        ValueError: the answer does not have the expected shape.
    """
    return records.parse(Trace, data)


def read(config: Config, paths: Paths, proxy_key: str, answer: Response) -> Trace:
    """The trace of the request with this answer, from the service of this deployment.

    Raises:
        OptictlError: there is no trace.
    """
    id = evidence.header(answer, "trace")
    if id is None:
        if answer.status == 200 and evidence.header(answer, "strategy"):
            raise NoTrace(
                "the active release keeps no traces: it is older than this optictl",
                paths.command("install"),
            )
        raise NoTrace(
            f"the request ran no strategy: {evidence.error_message(answer)}", paths.command("check")
        )
    if config.limits.max_traces == 0:
        raise NoTrace(
            "the service keeps no traces: limits.max_traces is 0",
            f"raise limits.max_traces, then {paths.command('install')}",
        )
    url = f"{config.url.removesuffix('/v1')}/guard/traces/{id}"
    response = network.request("GET", url, key=proxy_key, timeout=10)
    if response.status == 404:
        raise NoTrace(
            f"the service at {config.url} does not have the trace {id}: another service ran the "
            f"request, or {config.limits.max_traces} newer requests (limits.max_traces) "
            "replaced it",
            "send the request again; if the trace is missing again, another deployment served it",
        )
    try:
        return parse(response.data)
    except ValueError as error:
        why = error if response.status == 200 else evidence.error_message(response)
        raise NoTrace(f"the trace cannot be read: {why}", paths.command("check")) from None


def versions(config: Config, proxy_key: str) -> list[tuple[str, str]]:
    """(name, version) of what serves; empty if the service does not say it. It costs no tokens."""
    with suppress(MissingFact):
        return guard_state.read(config, proxy_key).versions
    return []


def bar(start: float, seconds: float, span: float, width: int) -> tuple[int, int]:
    """Start and length of a call's bar, in a row of `width` characters for `span` seconds. Pure.

    The length is at least one character.
    """
    scale = width / span if span > 0 else 0.0
    first = min(int(start * scale), width - 1)
    last = min(max(round((start + seconds) * scale), first + 1), width)
    return first, last - first


#: Pixels from one call to the next, and above the first one.
_STEP, _ABOVE = 36, 36
#: About the number of lines of the time axis.
_TICKS = 5


@dataclass(frozen=True)
class _Bar:
    """A call in the drawing: the left edge and the width in percent, the place in pixels."""

    call: Call
    left: float
    width: float
    y: int


@dataclass(frozen=True)
class _Request:
    """One request of the page. `lost`: (code, its meaning). `ticks`: (percent, label)."""

    model: str
    trace: Trace
    bars: list[_Bar]
    ticks: list[tuple[float, str]]
    lost: list[tuple[str, str]]

    @property
    def height(self) -> int:
        return _ABOVE + _STEP * len(self.bars) + 12

    @property
    def time(self) -> Times:
        return self.trace.time

    def seconds(self, value: float) -> str:
        """A time with its unit, in as many digits as the span of the request needs."""
        if self.trace.span < 1:
            return f"{1000 * value:.0f} ms"
        return f"{value:.2f} s" if self.trace.span < 100 else f"{value:.0f} s"


def ticks(span: float) -> list[tuple[float, str]]:
    """The lines of an axis from 0 to `span` seconds: (percent, label). Pure."""
    if span <= 0:
        return [(0.0, "0 s")]
    step = 1e-4
    while step * _TICKS < span:
        # 1, 2 or 5 times a power of ten
        step *= 2.5 if str(f"{step:e}")[0] == "2" else 2
    count = int(span / step + 1e-9)
    return [(round(100 * n * step / span, 2), _tick(n * step)) for n in range(count + 1)]


def _tick(seconds: float) -> str:
    return f"{1000 * seconds:.4g} ms" if 0 < seconds < 1 else f"{seconds:.4g} s"


def page(
    traces: Sequence[tuple[str, Trace]], when: str, versions: Sequence[tuple[str, str]] = ()
) -> str:
    """A self-contained HTML page of (requested model, trace) pairs.

    `versions`: (name, version) of what served the requests.
    """
    requests = [
        _Request(
            model,
            trace,
            [_bar(trace, call, place) for place, call in enumerate(trace.calls)],
            ticks(trace.span),
            [(code, effect.meaning(code).what) for code in trace.degraded],
        )
        for model, trace in traces
    ]
    return render.page("trace.html.j2", requests=requests, when=when, versions=versions)


def _bar(trace: Trace, call: Call, place: int) -> _Bar:
    """A call where it was in time. A short one is wide enough to be seen."""
    scale = 100 / trace.span if trace.span > 0 else 0.0
    left = min(round(call.start * scale, 2), 99.5)
    width = min(max(round(trace.lasted(call) * scale, 2), 0.5), 100 - left)
    return _Bar(call, left, round(width, 2), _ABOVE + _STEP * place)


def save(
    path: Path,
    traces: Sequence[tuple[str, Trace]],
    content: bool,
    versions: Sequence[tuple[str, str]] = (),
) -> None:
    """Write the HTML page; with prompts and answers in it, it is for the caller alone."""
    text = page(traces, time.strftime("%Y-%m-%d %H:%M"), versions)
    files.write(path.absolute(), text, 0o600 if content else 0o644)
