"""The guard's WSGI application in front of OptiLLM's.

It authenticates and validates every request, accepts only enabled strategies and base models, and
detects routing loops, before OptiLLM gets the request. It completes OptiLLM's answer, or replaces
it with an error, before the client gets it.
"""

from __future__ import annotations

import io
import json
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge
from werkzeug.wrappers import Request, Response

from . import GUARD_VERSION, answers, body, journal, ledger, metrics
from .answers import Refused
from .desk import RETRY_AFTER, desk
from .error_texts import is_error_text
from .metrics import Meter
from .settings import Settings
from .traces import CONTENT_HEADER, MAX_CONTENT_BYTES, Traces
from .turns import Full, Turns
from .workers import ONE_HEADER, Workers

_CHAT = "/v1/chat/completions"
_METHODS = {
    _CHAT: "POST",
    "/v1/models": "GET",
    "/health": "GET",
    "/metrics": "GET",
    "/guard/state": "GET",
}
_TRACES = "/guard/traces"
#: The longest time in the queue, in seconds. It is part of the request's time limit.
WAIT_SECONDS = 30
#: Concurrent requests for the upstream's list of models.
_LISTS = 8
#: Statuses of the upstream for which a retry cannot help.
_FINAL = {400, 401, 403, 404, 413, 415, 421, 422}

WSGIApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def resolve(
    model: str, choice: str | None, settings: Settings, loaded: set[str]
) -> tuple[str, str]:
    """The strategy and base model of a request. `choice`: the strategy in the body, or None.

    The whole name must match. OptiLLM's parser removes every leading strategy word, and would read
    `moa-proxy-large` as the base model `large`.

    Raises:
        Refused: 400, the name has no enabled strategy or no known base model.
    """
    # the name of one base model may end with the name of another: take the longest
    base = max((b for b in settings.base_models if model.endswith(f"-{b}")), key=len, default=None)
    if model in settings.base_models:
        raise Refused(
            400,
            "strategy_prefix_required",
            f"{model} has no strategy prefix: use {settings.strategies[0]}-{model}",
        )
    prefix = model[: -len(base) - 1] if base else model.split("-", 1)[0]
    if not base and prefix in settings.strategies:
        raise Refused(
            400,
            "base_model_unknown",
            f"{model} has no known base model; known: {', '.join(settings.base_models)}",
        )
    strategy = choice or prefix
    if not base or prefix not in settings.strategies or strategy not in settings.strategies:
        wrong = strategy if base and prefix in settings.strategies else prefix
        raise Refused(
            400,
            "strategy_not_enabled",
            f"{wrong!r} is not an enabled strategy; enabled: {', '.join(settings.strategies)}",
        )
    if strategy not in loaded:
        raise Refused(
            400,
            "strategy_not_loaded",
            f"OptiLLM did not load {strategy}; the service's start-up log has the reason",
        )
    return strategy, base


class Door:
    """The guarded application. `app`: OptiLLM's Flask application. `loaded`: its strategies."""

    def __init__(
        self,
        app: WSGIApp,
        settings: Settings,
        loaded: set[str],
        meter: Meter,
        build: dict[str, str],
        workers: Workers,
    ) -> None:
        self.app, self.settings, self.loaded, self.meter = app, settings, loaded, meter
        self.build, self.workers, self.started = build, workers, time.monotonic()
        self.traces = Traces(settings.max_traces)
        desk.turns = Turns(settings.max_in_flight)
        self._lists = threading.BoundedSemaphore(_LISTS)

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        request = Request(environ)
        # one more than allowed: werkzeug silently cuts off a body without a length at this number
        request.max_content_length = self.settings.max_body_bytes + 1
        try:
            response = self._respond(request)
        except Refused as refusal:
            self.meter.refused(refusal.code)
            journal.write("refused", status=refusal.status, code=refusal.code)
            response = answers.error(refusal.status, refusal.code, refusal.message, refusal.headers)
        except Exception as error:
            self.meter.refused("internal_error")
            journal.write("defect", exception=type(error).__name__)
            response = answers.error(
                500, "internal_error", "internal guard error; see the service log"
            )
        response.headers["x-optillm-guard"] = GUARD_VERSION
        answer: Iterable[bytes] = response(environ, start_response)
        return answer

    def _respond(self, request: Request) -> Response:
        is_trace = request.path == _TRACES or request.path.startswith(f"{_TRACES}/")
        allowed = "GET" if is_trace else _METHODS.get(request.path)
        if request.path != "/health":
            self._authenticate(request)
        if allowed is None:
            raise Refused(404, "not_found", f"unknown path; use {_CHAT}")
        if request.method != allowed and not (allowed == "GET" and request.method == "HEAD"):
            raise Refused(
                405, "method_not_allowed", f"{request.path} allows {allowed}", {"Allow": allowed}
            )
        if request.path == _CHAT:
            return self._chat(request)
        if request.path == "/metrics":
            return self._metrics(request)
        if is_trace:
            return self._traces(request)
        if request.path == "/guard/state":
            states = [self.state(), *map(json.loads, self._of_others(request).values())]
            return Response(json.dumps(joined(states)), mimetype="application/json")
        if request.path == "/health":
            return Response.from_app(self.app, request.environ, buffered=True)
        return self._models(request)

    def _of_others(self, request: Request) -> dict[int, bytes]:
        """The responses of the other workers to the same request: number -> body."""
        if request.headers.get(ONE_HEADER) == "1":
            return {}
        return self.workers.ask(request.path, self.settings.proxy_key)

    def _metrics(self, request: Request) -> Response:
        text = self.meter.exposition()
        if self.workers.count > 1 and request.headers.get(ONE_HEADER) != "1":
            text = metrics.joined({self.workers.place: text, **self._of_others(request)})
        return Response(text, content_type=metrics.CONTENT_TYPE)

    def _models(self, request: Request) -> Response:
        if not self._lists.acquire(
            blocking=False
        ):  # an upstream that hangs must not use up the threads for /health
            raise _come_back("overloaded", f"{_LISTS} requests for the model list are running")
        try:
            response = Response.from_app(self.app, request.environ, buffered=True)
        finally:
            self._lists.release()
        if response.status_code < 400:
            return response
        return answers.error(
            502, "upstream_failed", f"the upstream's model list failed: {_message(response)}"
        )

    def _traces(self, request: Request) -> Response:
        trace = request.path[len(_TRACES) + 1 :]
        if not trace:
            summaries = self.traces.newest()
            if others := self._of_others(request):
                for answer in others.values():
                    summaries += json.loads(answer)["traces"]
                summaries.sort(key=lambda trace: trace["began"] + trace["seconds"], reverse=True)
            listed = {"schema": 1, "traces": summaries}
            return Response(json.dumps(listed), mimetype="application/json")
        found = self.traces.get(trace)
        if found is not None:
            return Response(json.dumps({"schema": 1, **found}), mimetype="application/json")
        for answer in self._of_others(request).values():
            return Response(answer, mimetype="application/json")
        raise Refused(
            404,
            "trace_unknown",
            "unknown trace; only the newest requests are kept (limits.max_traces)",
        )

    def state(self) -> dict[str, Any]:
        """The state of this worker for /guard/state. Times are in seconds."""
        now = time.monotonic()
        return {
            "schema": 1,
            **self.build,
            "uptime": round(now - self.started, 3),
            "ready": not desk.closed,
            "strategies": sorted(self.loaded.intersection(self.settings.strategies)),
            "base_models": list(self.settings.base_models),
            "workers": {"wanted": self.workers.count, "serving": 1},
            "waiting": desk.turns.waiting,
            "max_in_flight": self.settings.max_in_flight,
            "in_flight": [
                {
                    "trace": entry.id,
                    "strategy": entry.strategy,
                    "base_model": entry.base_model,
                    "age": round(now - entry.started, 3),
                    "upstream_calls": len(entry.calls),
                    "upstream_open": entry.open_calls,
                }
                for entry in desk.requests()
            ],
        }

    def _authenticate(self, request: Request) -> None:
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        expected = self.settings.proxy_key.encode()
        if scheme.lower() != "bearer" or not secrets.compare_digest(
            key.strip().encode("utf-8", "surrogateescape"), expected
        ):
            raise Refused(
                401,
                "invalid_api_key",
                "the proxy key is missing or wrong",
                {"WWW-Authenticate": "Bearer"},
            )

    def _read(self, request: Request) -> bytes:
        if request.mimetype != "application/json":
            raise Refused(415, "unsupported_media_type", "the body must be application/json")
        limit = self.settings.max_body_bytes
        too_large = Refused(
            413, "body_too_large", f"the body is larger than {limit} bytes (limits.max_body_bytes)"
        )
        try:
            raw: bytes = request.get_data()
        except RequestEntityTooLarge:
            raise too_large from None
        except ClientDisconnected:
            raise Refused(400, "invalid_request", "the body is incomplete") from None
        except Exception:  # gunicorn's errors: a chunk with a wrong size, or without an end
            raise Refused(400, "invalid_request", "the body is not valid HTTP") from None
        if len(raw) > limit:
            raise too_large
        return raw

    def _chat(self, request: Request) -> Response:
        data = body.load(self._read(request))
        self._break_loop(data)
        asked = body.parse(data)
        strategy, base_model = resolve(asked.model, asked.choice, self.settings, self.loaded)
        entry = ledger.Request(
            strategy,
            base_model,
            max_calls=self.settings.max_upstream_calls,
            timeout=self.settings.request_timeout,
        )
        entry.keeps_content = request.headers.get(CONTENT_HEADER) == "1"
        if entry.may_keep(
            sum(len(message["content"]) for message in asked.messages), MAX_CONTENT_BYTES
        ):
            entry.messages = asked.messages
        most = self.settings.max_in_flight
        try:
            with desk.turns.turn(min(WAIT_SECONDS, entry.remaining()), lambda: _stay(request)):
                response = self._run(request, asked, entry)
        except Full:
            busy = f"{most} requests run, and the queue is full or too slow (limits.max_in_flight)"
            raise _come_back("overloaded", busy) from None
        response.headers.update(answers.facts(entry, asked.dropped))
        entry.seconds = time.monotonic() - entry.started
        entry.status = response.status_code
        entry.code = response.code if isinstance(response, answers.Failure) else ""
        self.meter.request_ended(entry, entry.status, entry.code)
        self.traces.keep(entry)
        _account(entry)
        return response

    def _break_loop(self, data: dict[str, Any]) -> None:
        messages = data.get("messages")
        if not isinstance(messages, list):
            return
        mark = ledger.fingerprint(messages)
        owners = ledger.in_flight.owners(mark)
        if not owners and not ledger.in_flight.is_anothers(mark):
            return
        loop = ledger.loop(data.get("model"))
        for owner in owners:
            desk.end(owner, loop)
        raise Refused(loop.status, loop.code, loop.message, {"x-should-retry": "false"})

    def _run(self, request: Request, asked: body.Body, entry: ledger.Request) -> Response:
        payload = asked.for_optillm(entry.strategy, entry.base_model)
        environ = {
            **request.environ,
            "wsgi.input": io.BytesIO(payload),
            "CONTENT_LENGTH": str(len(payload)),
            "CONTENT_TYPE": "application/json",
            # OptiLLM checks the key too, and needs this form
            "HTTP_AUTHORIZATION": f"Bearer {self.settings.proxy_key}",
        }
        environ.pop("HTTP_TRANSFER_ENCODING", None)
        try:
            with ledger.attributed_to(entry):
                inner = desk.serve(
                    entry, lambda: Response.from_app(self.app, environ, buffered=True)
                )
        except ledger.Abort as abort:
            entry.abort(abort)
        if entry.aborted is not None:  # a strategy with threads may swallow the exception
            reason = entry.aborted
            retry = (
                {"Retry-After": str(RETRY_AFTER)}
                if reason.status == 503
                else {"x-should-retry": "false"}
            )
            return answers.error(reason.status, reason.code, reason.message, retry)
        texts = _texts(inner)
        if texts is None or entry.all_failed or any(is_error_text(text) for text in texts):
            return _failure(entry, inner)
        if entry.may_keep(sum(map(len, texts)), MAX_CONTENT_BYTES):
            entry.answers = texts
        whole = answers.completion(entry, asked.model, texts)
        if asked.stream:
            return Response(
                answers.stream(whole, asked.include_usage), mimetype="text/event-stream"
            )
        return Response(json.dumps(whole), mimetype="application/json")


def joined(states: list[dict[str, Any]]) -> dict[str, Any]:
    """The state of the service, from the states of its workers."""
    return {
        **states[0],
        "uptime": max(state["uptime"] for state in states),
        "ready": any(state["ready"] for state in states),
        "workers": {**states[0]["workers"], "serving": len(states)},
        "waiting": sum(state["waiting"] for state in states),
        "max_in_flight": sum(state["max_in_flight"] for state in states),
        "in_flight": sorted(
            (one for state in states for one in state["in_flight"]), key=lambda one: -one["age"]
        ),
    }


def _come_back(code: str, what: str) -> Refused:
    return Refused(503, code, f"{what}; try again later", {"Retry-After": str(RETRY_AFTER)})


def _stay(request: Request) -> None:
    """Check whether a queued request should still wait.

    Raises:
        Refused: the service stops, or the client has disconnected.
    """
    if desk.closed:
        raise _come_back("draining", "the service is stopping")
    connection = request.environ.get("gunicorn.socket")
    if connection is None:
        return
    try:
        gone = connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return  # it is connected and has sent nothing more
    except OSError:
        gone = True
    if gone:
        raise Refused(499, "client_gone", "the client disconnected while it was in the queue")


def _texts(inner: Response) -> list[str] | None:
    """The texts of OptiLLM's answer. None when it has no valid texts."""
    if inner.status_code != 200:
        return None
    data = json.loads(inner.get_data())
    texts = [choice["message"]["content"] for choice in data.get("choices", ())]
    return texts if texts and all(isinstance(text, str) for text in texts) else None


def _message(inner: Response) -> str:
    try:
        return str(json.loads(inner.get_data())["error"])[:500]
    except (ValueError, KeyError, TypeError):
        return f"status {inner.status_code}"


def _failure(entry: ledger.Request, inner: Response) -> Response:
    """The error response for a strategy without an answer."""
    failures = entry.failures
    if not failures:
        return answers.error(
            502,
            "strategy_failed",
            f"{entry.strategy} made no answer from the upstream's responses",
        )
    # the first failure is the cause: after a 401, LiteLLM answers 429 for a while by itself
    first = failures[0]
    said = (
        f"the upstream answered {first.status}" if first.status else "the upstream did not answer"
    )
    message = f"{said}: {first.error}" if first.error else said
    headers = {"x-should-retry": "false"} if first.status in _FINAL else {}
    if first.status == 429:
        if first.retry_after:
            headers["Retry-After"] = first.retry_after
        return answers.error(429, "upstream_rate_limited", message, headers)
    if first.status == 421:
        return answers.error(421, "loop_detected", message, headers)
    return answers.error(502, "upstream_failed", message, headers)


def _account(entry: ledger.Request) -> None:
    """Log the request, in one line."""
    journal.write(
        "request",
        trace=entry.id,
        strategy=entry.strategy,
        base_model=entry.base_model,
        status=entry.status,
        code=entry.code,
        seconds=round(entry.seconds, 3),
        upstream_calls=len(entry.calls),
        upstream_failures=len(entry.failures),
        upstream_statuses=sorted({call.status for call in entry.calls}),
        prompt_tokens=entry.total("prompt_tokens"),
        completion_tokens=entry.total("completion_tokens"),
    )
