"""What tells who asks, and in which trace: it goes along with every upstream call. Pure.

LiteLLM reads the end user from `user`, and the trace from `traceparent` and its own headers. It
sends `extra_headers` on to the model, and `safety_identifier`; whether `user` and
`metadata` go there is a setting of the entry. Source: LITELLM 1.110.2, measured.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: The fields of a body, and the type of each.
FIELDS: Mapping[str, type] = {"user": str, "safety_identifier": str, "metadata": dict}
#: The headers by which LiteLLM knows the end user, the tags and the trace of a request.
_HEADERS = (
    "x-litellm-customer-id",
    "x-litellm-end-user-id",
    "x-litellm-tags",
    "x-litellm-trace-id",
    "x-litellm-session-id",
)
#: Source: W3C Trace Context, version 00. A later version may have more after it.
_TRACEPARENT = re.compile(
    r"(?P<version>(?!ff)[0-9a-f]{2})-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
    r"(?P<more>-.*)?"
)
#: Characters of a header. The standard demands as many for `tracestate`.
_MOST = 512


@dataclass(frozen=True)
class Carried:
    """What goes along: `fields` in the body, `headers` to LiteLLM, `trace` also to the model."""

    fields: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    trace: Mapping[str, str] = field(default_factory=dict)

    @property
    def traceparent(self) -> str:
        """The trace of the client and its span in it, "" without one."""
        return self.trace.get("traceparent", "")

    def with_body(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The body of an upstream call with all of it."""
        carried = {**body, **self.fields}
        if self.trace:
            carried["extra_headers"] = {**(body.get("extra_headers") or {}), **self.trace}
        return carried


def of(headers: Mapping[str, str], data: Mapping[str, Any]) -> Carried:
    """What a request brings along. `headers`: their names in lower case. `data`: its body.

    A trace that is not valid is left out, as the standard demands.
    """
    fields = {name: data[name] for name in FIELDS if data.get(name) is not None}
    trace = {
        name: headers[name]
        for name in ("traceparent", "tracestate")
        if _is_safe(headers.get(name, ""))
    }
    if not _is_trace(trace.get("traceparent", "")):
        trace = {}
    own = {name: headers[name] for name in _HEADERS if _is_safe(headers.get(name, ""))}
    return Carried(fields, {**own, **trace}, trace)


def _is_trace(traceparent: str) -> bool:
    match = _TRACEPARENT.fullmatch(traceparent)
    return match is not None and not (match["version"] == "00" and match["more"])


def wrong_field(data: Mapping[str, Any]) -> tuple[str, str] | None:
    """The first field of another type, and what it must be. None if all are right."""
    for name, kind in FIELDS.items():
        if data.get(name) is not None and not isinstance(data[name], kind):
            return name, "text" if kind is str else "an object"
    return None


def _is_safe(value: str) -> bool:
    return 0 < len(value) <= _MOST and value.isascii() and value.isprintable()
