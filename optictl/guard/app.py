"""The guard's ASGI application.

It authenticates and validates every request, accepts only enabled strategies and base models, and
detects routing loops, before a strategy runs. It completes the strategy's answer, or replaces it
with an error, before the client gets it. No client and no strategy holds up the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from . import (
    GUARD_VERSION,
    accounting,
    carried,
    conversation,
    costs,
    health_probe,
    limited,
    logs,
    loops,
    metrics,
    model_names,
    openapi,
    recent,
    request_schema,
    responses,
    traces,
)
from .answers import Answer
from .context import GuardContext
from .limiter import Full, Left
from .live import Live
from .responses import Refused, Response
from .traces import CONTENT_HEADER, MAX_CONTENT_BYTES
from .workers import ONE_HEADER

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

_CHAT = "/v1/chat/completions"
_MODELS = "/v1/models"
_METHODS = {
    _CHAT: "POST",
    _MODELS: "GET",
    "/health": "GET",
    "/metrics": "GET",
    "/guard/state": "GET",
    openapi.PATH: "GET",
}
#: For the error message of an unknown path.
_OTHER_APIS = (
    "For model: custom_openai/NAME, LiteLLM translates /v1/responses and /v1/messages to it"
)
_TRACES = "/guard/traces"
#: Paths with more after a slash.
_PREFIXES = (_TRACES, _MODELS)
#: The longest time in the queue, in seconds. It is part of the request's time limit.
WAIT_SECONDS = 30.0
#: Requests for the model list at the same time.
_LISTS = 16
#: Bytes of all request bodies that are on their way.
_MAX_BODY_BYTES = 64 * 1024 * 1024
#: A refused client may send this much more, and for so long, so that it can read the answer.
_LINGER_BYTES, _LINGER_SECONDS = 256 * 1024 * 1024, 3.0
#: Seconds until a stream begins without a text, so that an early error has its status.
_GRACE = 0.4
#: Seconds that a first part waits for the end: with a short text, the head has all headers.
_SHORT_TEXT = 0.05
#: The longest such wait while every call has failed so far: the next one will probably fail, too.
_FAILING_GRACE = 5.0
#: Seconds without an event after which a comment is sent: clients and proxies give up on silence.
_PAUSE = 10.0
_COMMENT = b": the strategy is at work\n\n"


class _ClientGone(Exception):
    """The client has disconnected: no one can get an answer."""


@dataclass
class Request:
    """A request of a client. `is_read`: its whole body was received."""

    method: str
    path: str
    headers: dict[str, str]
    receive: Receive
    is_read: bool = False

    @classmethod
    def of(cls, scope: dict[str, Any], receive: Receive) -> Request:
        """The request of an ASGI scope. Of a header that is twice there, the last one counts."""
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        is_empty = headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers
        return cls(scope["method"], scope["path"], headers, receive, is_empty)


class App:
    """The application."""

    def __init__(self, context: GuardContext) -> None:
        self.context = context
        self._lists = 0
        self._body_bytes = 0

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        request = Request.of(scope, receive)
        probe = request.headers.get(health_probe.HEADER, "")
        is_probe = health_probe.is_valid(probe, self.context.settings.proxy_key)
        response = await self._handled(self._respond(request), is_probe=is_probe)
        if response is not None:
            await _send(request, response, send)

    async def _handled(
        self, work: Awaitable[Response], *, is_probe: bool = False
    ) -> Response | None:
        """The response, also when there is an error. None: the client has gone.

        `is_probe`: a refusal is what optictl expects, and not worth a line in the log.
        """
        try:
            return await work
        except Refused as refusal:
            if not is_probe:
                self._report_refused(refusal.status, refusal.code)
            return responses.error(
                refusal.status, refusal.code, refusal.message, refusal.headers, refusal.param
            )
        except _ClientGone:
            self._report_refused(499, "client_gone")
            return None
        except Exception as error:
            self.context.meter.refused("internal_error")
            logs.write("defect", exception=type(error).__name__)
            return responses.error(
                500, "internal_error", "internal guard error; see the service log"
            )

    def _report_refused(self, status: int, code: str) -> None:
        self.context.meter.refused(code)
        logs.write("refused", status=status, code=code)

    async def _respond(self, request: Request) -> Response:
        path = request.path
        prefix = next((p for p in _PREFIXES if path == p or path.startswith(f"{p}/")), None)
        allowed = "GET" if prefix else _METHODS.get(path)
        if path == "/health" and request.method in ("GET", "HEAD"):
            return responses.as_json({"status": "ok"})
        if path == openapi.PATH and request.method in ("GET", "HEAD"):  # it tells no secret
            models = self.context.settings.base_models
            return responses.as_json(openapi.document(self.context.strategies, models))
        if path != "/health":
            self._authenticate(request)
        if allowed is None:
            # not 404: LiteLLM would take the model from all other clients (see `statuses`)
            raise Refused(400, "not_found", f"unknown path; use {_CHAT}. {_OTHER_APIS}")
        if request.method != allowed and not (allowed == "GET" and request.method == "HEAD"):
            raise Refused(405, "method_not_allowed", f"{path} allows {allowed}", {"Allow": allowed})
        if path == _CHAT:
            return await self._chat(request)
        if path == "/metrics":
            return await self._metrics(request)
        if prefix == _TRACES:
            return await self._traces(request)
        if path == "/guard/state":
            states = [self.state()]
            states += [json.loads(body) for body in (await self._of_others(request)).values()]
            return responses.as_json(joined(states))
        return await self._models(path.removeprefix(_MODELS).removeprefix("/"))

    def _authenticate(self, request: Request) -> None:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        expected = self.context.settings.proxy_key.encode()
        if scheme.lower() != "bearer" or not secrets.compare_digest(
            key.strip().encode("latin-1"), expected
        ):
            raise Refused(
                401,
                "invalid_api_key",
                "the proxy key is missing or wrong",
                {"WWW-Authenticate": "Bearer"},
            )

    # information

    async def _of_others(self, request: Request) -> dict[int, bytes]:
        """The responses of the other workers to the same request: number -> body."""
        workers = self.context.workers
        if workers.count == 1 or request.headers.get(ONE_HEADER) == "1":
            return {}
        key = self.context.settings.proxy_key
        return await asyncio.to_thread(workers.ask, request.path, key)

    async def _metrics(self, request: Request) -> Response:
        text = self.context.meter.exposition()
        workers = self.context.workers
        if workers.count > 1 and request.headers.get(ONE_HEADER) != "1":
            text = metrics.joined({workers.place: text, **await self._of_others(request)})
        return Response(text, content_type=metrics.CONTENT_TYPE)

    async def _traces(self, request: Request) -> Response:
        traces = self.context.traces
        trace = request.path[len(_TRACES) + 1 :]
        if not trace:
            summaries = traces.newest()
            if others := await self._of_others(request):
                for answer in others.values():
                    summaries += json.loads(answer)["traces"]
                summaries.sort(key=lambda trace: trace["began"] + trace["seconds"], reverse=True)
            return responses.as_json({"schema": 1, "traces": summaries})
        known = traces.get(trace)
        if known is not None:
            return responses.as_json({"schema": 1, **known})
        for answer in (await self._of_others(request)).values():
            return Response(answer)
        raise Refused(
            404,
            "trace_unknown",
            "unknown trace; only the newest requests are kept (limits.max_traces)",
        )

    def state(self) -> dict[str, Any]:
        """The state of this worker for /guard/state. Times are in seconds."""
        context, now = self.context, time.monotonic()
        return {
            "schema": 1,
            **context.build,
            "uptime": round(now - context.started, 3),
            "ready": not context.inflight.closed.done(),
            "strategies": context.strategies,
            "base_models": list(context.settings.base_models),
            "workers": {"wanted": context.workers.count, "serving": 1},
            "waiting": context.limiter.waiting,
            "max_in_flight": context.settings.max_in_flight,
            "in_flight": [
                {
                    "trace": entry.id,
                    "strategy": entry.strategy,
                    "base_model": entry.base_model,
                    "age": round(now - entry.started, 3),
                    "upstream_calls": len(entry.calls),
                    "upstream_open": entry.open_calls,
                }
                for entry in context.inflight.requests()
            ],
            "effect": context.recent.summaries(),
        }

    async def _models(self, name: str) -> Response:
        """What a client may ask for, of what the upstream serves now."""
        if self._lists >= _LISTS:  # an upstream that hangs must not collect threads
            raise responses.come_back("overloaded", f"{_LISTS} requests for models are running")
        self._lists += 1
        try:
            status, served, error = await asyncio.to_thread(self.context.upstream.models)
        finally:
            self._lists -= 1
        if error:
            said = f"{status}: {error}" if status else error
            return responses.error(
                502, "upstream_failed", f"the upstream's model list failed: {said}"
            )
        base_models = [base for base in self.context.settings.base_models if base in served]
        names = model_names.offered(self.context.strategies, base_models)
        created = int(time.time() - (time.monotonic() - self.context.started))
        entries = {
            offered: {
                "id": offered,
                "object": "model",
                "created": created,
                "owned_by": "optillm",
            }
            for offered in names
        }
        if not name:
            return responses.as_json({"object": "list", "data": list(entries.values())})
        if name not in entries:
            raise Refused(
                404, "model_unknown", "unknown model, or LiteLLM does not serve its base model"
            )
        return responses.as_json(entries[name])

    # requests for a strategy

    async def _chat(self, request: Request) -> Response:
        context, settings = self.context, self.context.settings
        data = request_schema.load(await self._read(request))
        if context.breaker.report_loop(request.headers, data):
            loop = loops.loop(data.get("model"))
            raise Refused(loop.status, loop.code, loop.message, {"x-should-retry": "false"})
        body = request_schema.parse(data, prompt_chooses=settings.choice == "prompt")
        strategy, base_model = model_names.resolve(
            body.model,
            body.choice,
            strategies=settings.strategies,
            base_models=settings.base_models,
            loaded=context.strategies,
        )
        body, parameters, options = request_schema.for_strategy(
            body, strategy, settings.strategy_options
        )
        answers = 1 if strategy == "none" else body.n
        each = costs.of_answer(strategy, options.values)
        if reason := costs.excess(strategy, each, answers, settings.max_upstream_calls):
            raise Refused(
                400, "upstream_call_limit", reason, {"x-should-retry": "false"}, param="n"
            )
        entry = accounting.Request(
            strategy,
            base_model,
            max_calls=settings.max_upstream_calls,
            timeout=settings.request_timeout,
            conversation=conversation.of(body.messages),
            parameters=parameters,
            options=options,
            parallel_calls=settings.parallel_calls,
            carried=carried.of(request.headers, data),
            answer_tokens=settings.answer_tokens,
        )
        entry.keeps_content = request.headers.get(CONTENT_HEADER) == "1"
        size = sum(len(str(message["content"])) for message in body.messages)
        if entry.may_keep(size, MAX_CONTENT_BYTES):
            entry.messages = body.messages
        context.breaker.watch(entry, data)
        gone = asyncio.ensure_future(_disconnected(request.receive))
        if body.stream:
            return await self._streamed(body, entry, gone)
        try:
            return await self._in_turn(body, entry, gone)
        finally:
            gone.cancel()

    async def _streamed(
        self, body: request_schema.Body, entry: accounting.Request, gone: asyncio.Future[None]
    ) -> Response:
        """A response that begins before the strategy has ended.

        An error within a moment of the start, or in the queue, still has its status.
        """
        live = Live(shows_progress=self.context.settings.progress == "reasoning")
        entry.live = live
        task = asyncio.ensure_future(self._in_turn(body, entry, gone))

        def ended(_task: asyncio.Future[Response]) -> None:
            gone.cancel()
            live.end()

        task.add_done_callback(ended)
        await _first(task, live.began)
        begun = time.monotonic()
        await _first(task, live.has_part, seconds=_GRACE)
        await _first(task, seconds=_SHORT_TEXT)
        while not task.done() and entry.is_failing and time.monotonic() - begun < _FAILING_GRACE:
            await _first(task, seconds=_FAILING_GRACE / 100)
        if task.done():
            return task.result()
        events = responses.Events(f"chatcmpl-{entry.id}", body.model, body.include_usage)
        headers = responses.early_headers(entry, body.dropped)
        return Response(
            self._events(live, task, events), content_type=responses.EVENTS, headers=headers
        )

    async def _events(
        self, live: Live, task: asyncio.Future[Response], events: responses.Events
    ) -> AsyncIterator[bytes]:
        """The events of a strategy that still runs: its text, or why there is none."""
        yield _COMMENT
        while True:
            try:
                part = await live.next(_PAUSE)
            except asyncio.TimeoutError:
                yield _COMMENT
                continue
            if part is None:
                break
            yield events.part(part)
        response = await self._handled(task)
        if response is None:
            return
        if response.completion is None:
            yield responses.error_event(response)
            return
        for event in events.end(response.completion):
            yield event

    async def _in_turn(
        self, body: request_schema.Body, entry: accounting.Request, gone: asyncio.Future[None]
    ) -> Response:
        context = self.context
        seconds = min(WAIT_SECONDS, entry.remaining())
        try:
            async with context.limiter.turn(seconds, (gone, context.inflight.closed)):
                if entry.live is not None:
                    entry.live.begin()
                response = await self._run(body, entry, gone)
        except Full:
            most = context.settings.max_in_flight
            busy = f"{most} requests run, and the queue is full or too slow (limits.max_in_flight)"
            raise responses.come_back("overloaded", busy) from None
        except Left:
            if gone.done():
                raise _ClientGone from None
            raise responses.come_back("draining", "the service is stopping") from None
        entry.seconds = time.monotonic() - entry.started
        entry.status, entry.code = response.status, response.code
        response.headers.update(responses.call_headers(entry, body.dropped))
        context.meter.request_ended(entry, entry.status, entry.code)
        context.recent.add(entry)
        entry.forget()
        context.traces.keep(entry)
        _log(entry)
        return response

    async def _run(
        self, body: request_schema.Body, entry: accounting.Request, gone: asyncio.Future[None]
    ) -> Response:
        context = self.context

        def end_for_nobody(_gone: asyncio.Future[None]) -> None:
            if not gone.cancelled():
                context.inflight.end(entry.id, _client_gone())

        gone.add_done_callback(end_for_nobody)
        answers: list[Answer] | None = None
        try:
            answers = await context.inflight.run(entry, lambda: context.runner.run(entry, body))
        except accounting.Abort as abort:
            entry.abort(abort)
        except Exception as error:
            # the strategy's own: the calls that failed, or the answers that it could not use
            logs.write("strategy_raised", strategy=entry.strategy, exception=type(error).__name__)
        finally:
            gone.remove_done_callback(end_for_nobody)
        if entry.aborted is not None:  # a strategy with threads may swallow the exception
            answers = _finished(entry)
            if answers is None:
                return responses.ended(entry, entry.aborted)
        if answers is None or entry.all_failed:
            return responses.failure(entry)
        texts = [answer.text or "" for answer in answers]
        if entry.may_keep(sum(map(len, texts)), MAX_CONTENT_BYTES):
            entry.answers = texts
        whole = responses.completion(entry, body.model, answers)
        if body.stream:
            return responses.stream(whole, body.include_usage)
        return responses.as_json(whole)

    async def _read(self, request: Request) -> bytes:
        """The body of a request.

        Raises:
            Refused: the body is too large, too late or of another type.
        """
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise Refused(415, "unsupported_media_type", "the body must be application/json")
        if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
            raise Refused(
                415,
                "unsupported_media_type",
                "the body must not be compressed",
                {"Accept-Encoding": "identity"},
            )
        limit = self.context.settings.max_body_bytes
        too_large = Refused(
            413, "body_too_large", f"the body is larger than {limit} bytes (limits.max_body_bytes)"
        )
        length = request.headers.get("content-length", "")
        if length.isdigit() and int(length[:20]) > limit:
            raise too_large
        try:
            body = await asyncio.wait_for(
                self._collect(request, limit, too_large), self.context.settings.body_timeout
            )
        except asyncio.TimeoutError:
            raise Refused(  # not 408: see `statuses`
                400, "read_timeout", "the body did not arrive in time (timeouts.body)"
            ) from None
        request.is_read = True
        return body

    async def _collect(self, request: Request, limit: int, too_large: Refused) -> bytes:
        parts: list[bytes] = []
        size = 0
        try:
            while True:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise _ClientGone
                part = message.get("body", b"")
                size += len(part)
                if size > limit:
                    raise too_large
                if self._body_bytes + len(part) > max(_MAX_BODY_BYTES, limit):
                    raise responses.come_back("overloaded", "too many bodies are on their way")
                self._body_bytes += len(part)
                parts.append(part)
                if not message.get("more_body", False):
                    return b"".join(parts)
        finally:
            self._body_bytes -= sum(map(len, parts))


async def _first(*futures: asyncio.Future[Any], seconds: float | None = None) -> None:
    """Wait until one of them is done, or for `seconds`."""
    await asyncio.wait(futures, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)


async def _disconnected(receive: Receive) -> None:
    """Wait until the client has disconnected."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _discard(receive: Receive) -> None:
    """Read the rest of a body, within limits."""
    left = _LINGER_BYTES
    while left > 0:
        message = await receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            return
        left -= len(message.get("body", b""))


async def _send(request: Request, response: Response, send: Send) -> None:
    """Send a response. A client that still sends its body can read the response first."""
    headers = {
        "content-type": response.content_type,
        "x-optillm-guard": GUARD_VERSION,
        **response.headers,
    }
    if not request.is_read:
        headers["connection"] = "close"
    parts = _parts(response.body)
    if isinstance(response.body, bytes):
        headers["content-length"] = str(len(response.body))
    await send(
        {
            "type": "http.response.start",
            "status": response.status,
            "headers": [
                (name.encode("latin-1"), value.encode("latin-1", "replace"))
                for name, value in headers.items()
            ],
        }
    )
    if request.is_read and isinstance(response.body, bytes):
        await send({"type": "http.response.body", "body": response.body})
        return
    async for part in parts:
        await send({"type": "http.response.body", "body": part, "more_body": True})
    if not request.is_read:
        # a connection that closes with unread bytes is reset, and the response is lost
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(_discard(request.receive), _LINGER_SECONDS)
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _parts(body: bytes | list[bytes] | AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """A body in parts."""
    if isinstance(body, bytes):
        yield body
    elif isinstance(body, list):
        for part in body:
            yield part
    else:
        async for part in body:
            yield part


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
            (entry for state in states for entry in state["in_flight"]),
            key=lambda entry: -entry["age"],
        ),
        "effect": recent.joined([state["effect"] for state in states]),
    }


def _finished(entry: accounting.Request) -> list[Answer] | None:
    """The answers that a request has at one of its limits. None if it has none, or ended otherwise.

    A client that asked for several gets those that were paid for.
    """
    limit = limited.key_of(entry.aborted.code) if entry.aborted is not None else ""
    finished = [answer for _, answers in sorted(entry.finished.items()) for answer in answers]
    if not limit or not finished:
        return None
    entry.limited_by.append(limit)
    return finished


def _client_gone() -> accounting.Abort:
    return accounting.Abort(499, "client_gone", "the client disconnected")


def _log(entry: accounting.Request) -> None:
    """Log the request, in one line."""
    logs.write(
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
        **({"traceparent": entry.carried.traceparent} if entry.carried.traceparent else {}),
        **traces.effect(entry),
    )
