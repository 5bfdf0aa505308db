"""The newest requests, each with its upstream calls: kept in memory only, for whoever holds the key.

Prompts and answers are in it only where a client asked for that with its request.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

from . import ledger

#: A client that sends this with the value 1 has the prompts and answers of its request kept.
CONTENT_HEADER = "x-optillm-trace-content"
#: All traces together, estimated.
MAX_BYTES = 16 * 1024 * 1024
#: What is kept of the contents of one request.
MAX_CONTENT_BYTES = MAX_BYTES // 4
#: A call's own fields, and a request's.
_CALL_BYTES, _REQUEST_BYTES = 600, 1000

#: strategy -> how the last message of a call ends (moa.py, bon.py, plansearch.py of OptiLLM 0.3.12), and what the
#: call is for; "" fits any. A strategy that is not here makes its calls for reasons that nothing shows: `call`.
PURPOSES: dict[str, tuple[tuple[str, str], ...]] = {
    "moa": (
        ("Please provide your critique for each candidate:", "critique"),
        ("Please provide a final, optimized response to the original query:", "final"),
        ("", "candidate"),
    ),
    "bon": (("Rate the above response:", "rating"), ("", "candidate")),
    "self_consistency": (("", "candidate"),),
    "plansearch": (
        ("new observations derived from the existing ones.", "derived observations"),
        ("observations.", "observations"),
        ("IS CRUCIAL.", "solution"),
        ("Please implement the solution in Python.", "final"),
    ),
    "re2": (("", "final"),),
    "cot_reflection": (("", "final"),),
}
UNKNOWN_PURPOSE = "call"


def purpose(strategy: str, messages: Any) -> str:
    """What a strategy makes a call for, as far as the call shows it."""
    last = messages[-1] if isinstance(messages, list) and messages else None
    content = last.get("content") if isinstance(last, dict) else None
    text = content.rstrip() if isinstance(content, str) else ""
    return next(
        (word for end, word in PURPOSES.get(strategy, ()) if text.endswith(end)), UNKNOWN_PURPOSE
    )


def _call(request: ledger.Request, call: ledger.Call) -> dict[str, Any]:
    told: dict[str, Any] = {
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
    }
    if request.keeps_content:
        told["messages"], told["answers"] = call.messages, call.answers
    return told


def summary(request: ledger.Request) -> dict[str, Any]:
    """A request in a few numbers. `began` is Unix time; lengths are seconds."""
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
    }


def whole(request: ledger.Request) -> dict[str, Any]:
    """A request with its calls in the order in which they were made; their `start` counts from the request's."""
    content = (
        {"messages": request.messages, "answers": request.answers} if request.keeps_content else {}
    )
    return {
        **summary(request),
        **content,
        "calls": [_call(request, call) for call in list(request.calls)],
    }


class Traces:
    """The last `most` requests that ran a strategy, fewer where they are large."""

    def __init__(self, most: int, max_bytes: int = MAX_BYTES) -> None:
        self._most, self._max_bytes = most, max_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, tuple[ledger.Request, int]] = OrderedDict()
        self._bytes = 0

    def keep(self, request: ledger.Request) -> None:
        """Called when a request has ended."""
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
        """A whole trace, or None when it is not kept."""
        with self._lock:
            found = self._kept.get(trace)
        return whole(found[0]) if found else None
