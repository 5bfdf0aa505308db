"""Traces: the newest requests with their upstream calls, in memory only.

The proxy key is needed to read them. They contain prompts and answers only if the client requested
that with a header.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from typing import Any

from . import accounting, ratings
from .conversation import text_of

#: With this header and the value 1, the trace keeps the prompts and answers of the request.
CONTENT_HEADER = "x-optillm-trace-content"
#: The estimated size of all traces. Bytes.
MAX_BYTES = 16 * 1024 * 1024
#: The contents of one request. Bytes.
MAX_CONTENT_BYTES = MAX_BYTES // 4
#: The estimated size of a call and of a request without contents. Bytes.
_CALL_BYTES, _REQUEST_BYTES = 600, 1000

#: strategy -> (end of the last message of a call, purpose of the call); "" matches every message.
#: Source: moa.py, bon.py, plansearch.py of OptiLLM 0.3.12. Calls of other strategies show no
#: purpose: they are `call`.
PURPOSES: dict[str, tuple[tuple[str, str], ...]] = {
    "moa": (
        ("Please provide your critique for each candidate:", "critique"),
        ("Please provide a final, optimized response to the original query:", "final"),
        ("", "candidate"),
    ),
    "bon": (
        ("Rate the above response:", "rating"),
        (ratings.ASK_AGAIN, "rating"),
        ("", "candidate"),
    ),
    "self_consistency": (("", "candidate"),),
    "plansearch": (
        ("new observations derived from the existing ones.", "derived observations"),
        ("observations.", "observations"),
        ("IS CRUCIAL.", "solution"),
        ("Please implement the solution in Python.", "final"),
    ),
    "re2": (("", "final"),),
    "cot_reflection": (("", "final"),),
    "rto": (
        ("Only respond with the final code, do not return anything else.", "final"),
        ("", "call"),
    ),
}
UNKNOWN_PURPOSE = "call"


def purpose(strategy: str, messages: Any) -> str:
    """The purpose of a strategy's call, from the end of its last message."""
    last = messages[-1] if isinstance(messages, list) and messages else None
    text = text_of(last.get("content") if isinstance(last, dict) else None).rstrip()
    return next(
        (word for end, word in PURPOSES.get(strategy, ()) if text.endswith(end)), UNKNOWN_PURPOSE
    )


def _entry(request: accounting.Request, call: accounting.Call) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "purpose": call.purpose,
        "model": call.model,
        "thread": call.thread,
        "start": round(call.started - request.started, 4),
        "seconds": None if call.is_open else round(call.seconds, 4),
        "status": call.status,
        "error": call.reason,
        "completions": call.completions,
        "prompt_tokens": call.prompt_tokens,
        "completion_tokens": call.completion_tokens,
        "codes": _codes(request, call),
    }
    if request.keeps_content:
        entry["messages"], entry["answers"] = call.messages, call.answers
    return entry


def _codes(request: accounting.Request, call: accounting.Call) -> list[str]:
    """The codes of the judgement that concern a call."""
    findings = request.judgement.findings if request.judgement else ()
    return list(dict.fromkeys(one.code for one in findings if call.place in one.calls))


def summary(request: accounting.Request) -> dict[str, Any]:
    """The main numbers of a request. `began`: Unix time. Durations are in seconds."""
    calls = list(request.calls)
    return {
        "trace": request.id,
        "strategy": request.strategy,
        "base_model": request.base_model,
        "began": round(request.began, 3),
        "seconds": round(request.seconds, 4),
        "status": request.status,
        "code": request.code,
        "upstream_calls": len(calls),
        "upstream_failures": sum(call.failed for call in calls),
        "prompt_tokens": request.total("prompt_tokens"),
        "completion_tokens": request.total("completion_tokens"),
        **effect(request),
    }


def effect(request: accounting.Request) -> dict[str, Any]:
    """What is known about the effect of the strategy: the judgement and the fixes that acted."""
    judged = request.judgement
    return {
        "effect": judged.effect if judged else "",
        "degraded": judged.codes if judged else [],
        "fixed": sorted(request.fixed),
    }


def facts(request: accounting.Request) -> dict[str, str]:
    """What is known about the effect, as in the headers of an answer (`x-optillm-NAME`)."""
    judged = request.judgement
    found = {}
    if request.fixed:
        found["fixed"] = ",".join(sorted(request.fixed))
    if judged is None:
        return found
    found["effect"] = judged.effect
    if judged.codes:
        found["degraded"] = ",".join(judged.codes)
    if judged.samples:
        found["samples"] = "/".join(map(str, judged.samples))
    if judged.ratings:
        found["ratings"] = json.dumps(
            [int(one) if one is not None and one == int(one) else one for one in judged.ratings]
        )
    if judged.agreement:
        found["agreement"] = "/".join(map(str, judged.agreement))
    if judged.evidence:
        found["evidence"] = "; ".join(judged.evidence)
    return found


def whole(request: accounting.Request) -> dict[str, Any]:
    """A request with its calls, in order. `start` of a call: seconds since the request's start."""
    content = (
        {"messages": request.messages, "answers": request.answers} if request.keeps_content else {}
    )
    return {
        **summary(request),
        "facts": facts(request),
        "traceparent": request.carried.traceparent,
        **content,
        "calls": [_entry(request, call) for call in list(request.calls)],
    }


class Traces:
    """The last `most` requests that ran a strategy, or fewer when they need too much memory."""

    def __init__(self, most: int, max_bytes: int = MAX_BYTES) -> None:
        self._most, self._max_bytes = most, max_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, tuple[accounting.Request, int]] = OrderedDict()
        self._bytes = 0

    def keep(self, request: accounting.Request) -> None:
        """Add a request that has ended, and drop the oldest ones."""
        size = _REQUEST_BYTES + _CALL_BYTES * len(request.calls) + request.content_bytes
        with self._lock:
            self._kept[request.id] = request, size
            self._bytes += size
            while self._kept and (len(self._kept) > self._most or self._bytes > self._max_bytes):
                _, (_, freed) = self._kept.popitem(last=False)
                self._bytes -= freed

    def newest(self) -> list[dict[str, Any]]:
        """The summaries, the newest first."""
        with self._lock:
            kept = [request for request, _ in self._kept.values()]
        return [summary(request) for request in reversed(kept)]

    def get(self, trace: str) -> dict[str, Any] | None:
        """A trace with its calls. None when it is not in memory."""
        with self._lock:
            kept = self._kept.get(trace)
        return whole(kept[0]) if kept else None
