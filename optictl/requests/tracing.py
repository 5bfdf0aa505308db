"""The trace of one request: the purpose, times, tokens and status of each upstream call.

Times are in seconds; a call's start counts from the start of the request.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from optictl import records
from optictl.deployment import render
from optictl.deployment.config import Config
from optictl.deployment.paths import Paths
from optictl.errors import NoTrace
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


def bar(start: float, seconds: float, span: float, width: int) -> tuple[int, int]:
    """Start and length of a call's bar, in a row of `width` characters for `span` seconds. Pure.

    The length is at least one character.
    """
    scale = width / span if span > 0 else 0.0
    first = min(int(start * scale), width - 1)
    last = min(max(round((start + seconds) * scale), first + 1), width)
    return first, last - first


def page(traces: Sequence[tuple[str, Trace]], when: str) -> str:
    """A self-contained HTML page of (requested model, trace) pairs."""
    drawn = [
        (model, trace, [_placed(trace, call) for call in trace.calls]) for model, trace in traces
    ]
    lost = {
        trace.trace: [(code, effect.meaning(code).what) for code in trace.degraded]
        for _, trace in traces
    }
    return render.page("trace.html.j2", traces=drawn, lost=lost, when=when)


def _placed(trace: Trace, call: Call) -> tuple[Call, float, float]:
    """A call with the left edge and the width of its bar, in percent."""
    scale = 100 / trace.span if trace.span > 0 else 0.0
    return call, call.start * scale, max(trace.lasted(call) * scale, 0.2)


def save(path: Path, traces: Sequence[tuple[str, Trace]], content: bool) -> None:
    """Write the HTML page; with prompts and answers in it, it is for the caller alone."""
    text = page(traces, time.strftime("%Y-%m-%d %H:%M"))
    files.write(path.absolute(), text, 0o600 if content else 0o644)
