"""Routing loops: LiteLLM sends one of OptiLLM's own upstream calls back to OptiLLM.

First line: every upstream call has a mark, which LiteLLM passes on as a header. A request with a
mark is a loop, whichever process made the call.

Second line: a second LiteLLM between the two drops the mark. Then a chain of requests grows, each
with the conversation of an upstream call that waits. Clients that ask the same question at the
same time look like such a chain, so it is a suspicion only. The guard then sends one small probe
upstream, with a signed text. If the probe arrives at OptiLLM, the base model is in a loop.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from . import accounting, logs
from .inflight import InFlight

#: The mark: a header of each upstream call, with the trace ID of its request as the value.
MARK_HEADER = "x-optillm-hop"
#: A chain of this many requests is a suspicion.
_CHAIN = 8
#: Requests that arrive within this many seconds are clients with the same question, not a chain.
_CHAIN_SECONDS = 0.5
#: Seconds between two probes of one base model.
_PROBE_INTERVAL = 60.0
_PROBE = re.compile(r"optillm loop probe ([0-9a-f]{32}) ([0-9a-f]{32})")


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return " ".join(
            part["text"]
            for part in content
            if isinstance(part, dict) and isinstance(part.get("text"), str)
        )
    return ""


def fingerprint(messages: Iterable[Any]) -> bytes:
    """A digest of a conversation, the same before and after LiteLLM. 16 bytes.

    It ignores messages without text: strategies add empty system messages, and some providers drop
    them. The roles `developer` and `system` are equal.
    """
    digest = hashlib.blake2b(digest_size=16)
    for message in messages:
        if not isinstance(message, dict):
            continue
        text = _text(message.get("content")).strip()
        if text:
            role = message.get("role")
            digest.update(
                f"{'system' if role == 'developer' else role}\0{text}\0".encode(
                    "utf-8", "surrogatepass"
                )
            )
    return digest.digest()


def _mark(body: Mapping[str, Any]) -> tuple[bytes, int | None]:
    """What a call and a request have in common if the request is the call.

    The token limit tells most clients from the call of a strategy, which sets one. LiteLLM may give
    it its other name.
    """
    messages = body.get("messages")
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    return (
        fingerprint(messages if isinstance(messages, list) else ()),
        limit if isinstance(limit, int) else None,
    )


def loop(model: object) -> accounting.Abort:
    """The error of a request whose upstream call came back as a request for `model`."""
    return accounting.Abort(
        421,
        "loop_detected",
        f"routing loop: LiteLLM sent OptiLLM's own call for {model!r} back to OptiLLM; "
        "LiteLLM must send base models to a real model. `optictl check` finds the entry",
    )


def marked(body: dict[str, Any], trace: str) -> dict[str, Any]:
    """The body of an upstream call with its mark.

    LiteLLM sends `extra_headers` on as headers. Source: LITELLM 1.108.7, measured.
    """
    return {**body, "extra_headers": {MARK_HEADER: trace}}


def mark_of(headers: Mapping[str, str], body: Mapping[str, Any]) -> str | None:
    """The mark of a request: the trace ID of the request whose call came back. None without one."""
    if mark := headers.get(MARK_HEADER):
        return mark
    extra = body.get("extra_headers")  # a server in between that passes bodies on unchanged
    mark = extra.get(MARK_HEADER) if isinstance(extra, dict) else None
    return mark if isinstance(mark, str) and mark else None


class Conversations:
    """The conversations of the upstream calls in flight in this process. Any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[tuple[bytes, int | None], list[accounting.Request]] = {}

    @contextmanager
    def waiting(self, body: Mapping[str, Any], request: accounting.Request) -> Iterator[None]:
        """Record the conversation of a call during the block."""
        mark = _mark(body)
        with self._lock:
            self._waiting.setdefault(mark, []).append(request)
        try:
            yield
        finally:
            with self._lock:
                requests = self._waiting[mark]
                requests.remove(request)
                if not requests:
                    del self._waiting[mark]

    def owners(self, body: Mapping[str, Any]) -> list[accounting.Request]:
        """The requests with an upstream call in flight for exactly this conversation."""
        with self._lock:
            return list(self._waiting.get(_mark(body), ()))


class Probes:
    """Signed probes of base models, at most one a minute for each.

    Any process with the same key recognizes a probe.
    """

    def __init__(self, key: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._key = key.encode()
        self._clock = clock
        self._sent: dict[str, float] = {}
        self._models: dict[str, str] = {}

    def text(self, base_model: str) -> str | None:
        """The text of a new probe. None when the last one is too recent."""
        now = self._clock()
        if now - self._sent.get(base_model, -_PROBE_INTERVAL) < _PROBE_INTERVAL:
            return None
        self._sent[base_model] = now
        nonce = secrets.token_hex(16)
        self._models[nonce] = base_model
        return f"optillm loop probe {nonce} {self._sign(nonce)}"

    def nonce(self, messages: Iterable[Any]) -> str | None:
        """The nonce of a probe in these messages. None without a valid probe."""
        for message in messages:
            text = _text(message.get("content")) if isinstance(message, dict) else ""
            match = _PROBE.search(text[-500:])
            if match and hmac.compare_digest(match[2], self._sign(match[1])):
                return match[1]
        return None

    def base_model(self, nonce: str) -> str | None:
        """The base model of a probe that this process sent and that has not come back yet."""
        return self._models.pop(nonce, None)

    def forget(self, text: str) -> None:
        """The probe has its answer."""
        self._models.pop(text.split()[3], None)

    def _sign(self, nonce: str) -> str:
        return hmac.new(self._key, nonce.encode(), hashlib.sha256).hexdigest()[:32]


class LoopBreaker:
    """Recognizes requests that are OptiLLM's own calls, and ends the requests behind them.

    Only the event loop uses it.

    Args:
        probe: sends a text as an upstream call to a base model, in the background, and calls
            `answered` with the text afterwards.
        tell: sends a report to the other workers.
    """

    def __init__(
        self,
        inflight: InFlight,
        conversations: Conversations,
        probes: Probes,
        probe: Callable[[str, str], None],
        tell: Callable[[str, str], None],
    ) -> None:
        self._inflight, self._conversations, self._probes = inflight, conversations, probes
        self._probe, self._tell = probe, tell

    def report_loop(self, headers: Mapping[str, str], body: Mapping[str, Any]) -> bool:
        """Whether a request is one of OptiLLM's own calls. Ends the request behind the call."""
        messages = body.get("messages")
        messages = messages if isinstance(messages, list) else []
        mark = mark_of(headers, body)
        if mark is not None:
            self._report("request", mark)
            return True
        nonce = self._probes.nonce(messages)
        if nonce is not None:
            self._report("probe", nonce)
            return True
        return False

    def hear(self, kind: str, value: str) -> bool:
        """A report from here or another worker: a request or a probe came back.

        Returns whether this process had sent it.
        """
        if kind == "request":
            owner = next((r for r in self._inflight.requests() if r.id == value), None)
            return owner is not None and self._inflight.end(value, loop(owner.base_model))
        base_model = self._probes.base_model(value)
        if base_model is None:
            return False
        logs.write("loop_proven", base_model=base_model)
        for request in self._inflight.requests():
            if request.base_model == base_model:
                self._inflight.end(request.id, loop(base_model))
        return True

    def watch(self, request: accounting.Request, body: Mapping[str, Any]) -> None:
        """Look for a chain that ends in this request. Sends a probe when there is one."""
        owners = [
            owner
            for owner in self._conversations.owners(body)
            if owner.base_model == request.base_model
        ]
        if not owners:
            return
        parent = max(owners, key=lambda owner: owner.chain_length)
        request.chain_length = parent.chain_length + 1
        request.chain_started = parent.chain_started
        # each pass of a loop would cause several side by side, and each of those again
        request.parallel_calls = 1
        age = request.started - request.chain_started
        if request.chain_length < _CHAIN or age < _CHAIN_SECONDS:
            return
        text = self._probes.text(request.base_model)
        if text is not None:
            logs.write(
                "loop_suspected", base_model=request.base_model, requests=request.chain_length
            )
            self._probe(request.base_model, text)

    def answered(self, text: str) -> None:
        """A probe has its answer: it did not come back here."""
        self._probes.forget(text)

    def _report(self, kind: str, value: str) -> None:
        if not self.hear(kind, value):
            self._tell(kind, value)
