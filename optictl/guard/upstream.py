"""The upstream client: one HTTP client per process. It marks and records every call.

OptiLLM 0.3.12 to 0.4.0 builds an HTTP client with a TLS context for every request, and the SDK
validates every answer. Both take far more CPU time than the call itself.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from types import SimpleNamespace
from typing import Any

import httpx2
import openai

from . import accounting, exchanges, loops, refusals, traces, watchdog
from .accounting import Sending
from .completions import Usage
from .events import StreamedCompletion
from .exchanges import Exchange, Run
from .fixes import FixedClient, Policy
from .settings import Settings
from .support import RatingSupport, SampleSupport, StreamSupport
from .threads import Threads
from .transport import Line, NoResponse, TooSlow, Transport

_PATH = "chat/completions"
#: Seconds for the model list and for a probe.
_SHORT_TIMEOUT = 20.0
_ERRORS: dict[int, type[openai.APIStatusError]] = {
    400: openai.BadRequestError,
    401: openai.AuthenticationError,
    403: openai.PermissionDeniedError,
    404: openai.NotFoundError,
    409: openai.ConflictError,
    422: openai.UnprocessableEntityError,
    429: openai.RateLimitError,
}
Ended = Callable[[accounting.Request, accounting.Call], None]
#: Statuses that another try may change. Source: the SDK's `_should_retry`.
_PASSING = (408, 409, 429)
#: Seconds until the first retry, and the most between two.
_FIRST_PAUSE, _MOST_PAUSE = 0.5, 8.0
#: The longest Retry-After that is kept. Seconds.
_LONGEST_RETRY_AFTER = 60.0


@dataclass(frozen=True)
class Answer:
    """A response of the upstream. `raw`: the whole body. `headers`: names in lower case."""

    status: int
    headers: Mapping[str, str]
    raw: bytes

    @cached_property
    def data(self) -> dict[str, Any]:
        """The JSON object of the body, {} without one."""
        return _json(self.raw)

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300

    def checked(self) -> Answer:
        """The answer; a failure if its body is an error, which some servers send with a 200."""
        error = self.data.get("error") if self.is_success else None
        if not error or self.data.get("choices"):
            return self
        code = error.get("code") if isinstance(error, dict) else None
        known = str(code).isdecimal() and 400 <= int(str(code)) < 600
        return replace(self, status=int(str(code)) if known else 502)


def _json(raw: bytes) -> dict[str, Any]:
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def error_text(data: dict[str, Any], raw: bytes) -> str:
    """The upstream's error message, at most 500 characters. `data`: the JSON object in `raw`."""
    error = data.get("error")
    text = error.get("message") if isinstance(error, dict) else error
    return str(text or raw.decode("utf-8", "replace")).strip()[:500]


def _enter_answer(call: accounting.Call, body: dict[str, Any]) -> None:
    tokens = Usage.of(body)
    choices = body.get("choices")
    choices = choices if isinstance(choices, list) else []
    call.completions = len(choices)
    samples = exchanges.samples_of(body)
    call.truncated = any(sample.is_truncated for sample in samples)
    call.filtered = any(sample.is_filtered for sample in samples)
    call.empty = all(sample.is_empty for sample in samples)
    call.prompt_tokens, call.completion_tokens = tokens.prompt_tokens, tokens.completion_tokens
    call.reasoning_tokens = tokens.reasoning_tokens
    call.cached_tokens = tokens.cached_tokens


def _is_blank(body: dict[str, Any]) -> bool:
    """Whether a completion has neither a text nor a reason for having none."""
    choices = body.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        return False
    names = ("content", "reasoning_content", "refusal", "tool_calls")
    says = any(message.get(name) for name in names)
    return not says and choice.get("finish_reason") in (None, "stop")


def _reason(status: int) -> str:
    return "rate_limited" if status == 429 else f"{status // 100}xx"


def _texts(body: dict[str, Any]) -> list[Any]:
    choices = body.get("choices")
    messages = (
        [choice.get("message") for choice in choices if isinstance(choice, dict)]
        if isinstance(choices, list)
        else []
    )
    return [message.get("content") for message in messages if isinstance(message, dict)]


class Upstream:
    """The calls to LiteLLM. Any thread may use it.

    `ended`: called after each call, in its thread. `conversations`: those of the calls in flight.
    """

    def __init__(
        self,
        settings: Settings,
        key: str,
        ended: Ended,
        conversations: loops.Conversations,
        threads: Threads,
    ) -> None:
        self._threads = threads
        self._settings, self._ended, self._conversations = settings, ended, conversations
        self._headers = {
            "Authorization": f"Bearer {key}",
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",  # it is on this machine
        }
        self._transport = Transport(settings.base_url, settings.upstream_socket)
        self._samples, self._streams = SampleSupport(), StreamSupport()
        self._ratings = RatingSupport()
        self._policy = Policy(frozenset(settings.effect), settings.budget_tokens)
        self._sdk = openai.OpenAI(
            api_key=key,
            base_url=settings.base_url,
            max_retries=0,  # `call` makes them: it does not sleep on when the request has ended
            timeout=settings.request_timeout,
            http_client=_SdkTransport(self),
        )

    def client(self, request: accounting.Request, run: Run, *, plain: bool) -> Any:
        """The client for a run of the strategy of a request.

        `plain`: without the SDK, for strategies that read answers only as `completions` has them.
        """
        if not plain:
            return SdkClient(self._sdk, request, run)
        is_plain = request.strategy == "none"  # a model without a strategy has nothing to fix
        policy = Policy(frozenset()) if is_plain else self._policy
        request.votes_on_answers = "votes" in policy.fixes
        send = partial(self._completion, request)
        support = (self._samples, self._ratings)
        return FixedClient(request, run, policy, support, send, self._threads)

    def _completion(
        self, request: accounting.Request, body: dict[str, Any], sending: Sending
    ) -> dict[str, Any]:
        """One call without the SDK, which raises the SDK's exceptions."""
        sent = httpx2.Request("POST", self._settings.base_url)
        try:
            answer = self.call(request, body, sending)
        except TooSlow:
            raise openai.APITimeoutError(request=sent) from None
        except NoResponse:
            raise openai.APIConnectionError(request=sent) from None
        if not answer.is_success:
            raise _status_error(answer, sent)
        return answer.data

    def call(self, request: accounting.Request, body: dict[str, Any], sending: Sending) -> Answer:
        """Send one call of a request, with the retries of the settings, and record each.

        The client's messages take the places of the texts that stand for them in the strategy.

        A call for one completion streams, because a model notices only while it sends that the
        connection is closed. Several choices do not: LiteLLM loses the ends of all but one.

        Returns:
            The answer, which may be an error.

        Raises:
            Abort: the request has ended.
            NoResponse: there is no whole response.
        """
        sink, model = sending.sink, str(body.get("model", ""))
        if not sending.purpose:
            purpose = traces.purpose(request.strategy, body.get("messages"))
            sending = replace(sending, purpose=purpose)
        if "messages" in body:
            body = {**body, "messages": request.conversation.in_place(body["messages"])}
        is_one = body.get("n") in (1, None) and not body.get("stream") and not sending.is_whole
        streams = is_one and (sink is not None or self._settings.stream_calls)
        if not streams or self._streams.is_missing(model):
            return self._tried(request, body, sending)
        asked = {**body, "stream": True, "stream_options": {"include_usage": True}}
        answer = self._tried(request, asked, sending, is_streamed=True)
        if not answer.is_success:
            return answer
        if not _is_blank(answer.data):
            self._streams.works(model)
        elif self._streams.is_doubtful(model):
            whole = self._tried(request, body, sending)
            if whole.is_success and not _is_blank(whole.data):
                self._streams.remember(model)
            return whole
        return answer

    def _tried(
        self,
        request: accounting.Request,
        body: dict[str, Any],
        sending: Sending,
        *,
        is_streamed: bool = False,
    ) -> Answer:
        """Send a call with the retries. `is_streamed`: read a stream as a whole completion."""
        sink = sending.sink
        for attempt in range(self._settings.max_retries):
            try:
                answer = self._post(request, body, sending, is_streamed)
            except NoResponse:
                if sink is not None and sink.has_text:  # the client has a part of it
                    raise
                request.pause(_pause(attempt, {}))
                continue
            if not _may_pass(answer) or (sink is not None and sink.has_text):
                return answer
            request.pause(_pause(attempt, answer.headers))
        return self._post(request, body, sending, is_streamed)

    def _post(
        self,
        request: accounting.Request,
        body: dict[str, Any],
        sending: Sending,
        is_streamed: bool,
    ) -> Answer:
        """Send one call, and record it."""
        messages = body.get("messages")
        carried = request.carried.with_body(loops.marked(body, request.id))
        content = json.dumps(carried).encode()
        call = accounting.Call(
            model=str(body.get("model", "")),
            purpose=sending.purpose,
            is_streamed=is_streamed,
            asked=count if isinstance(count := body.get("n"), int) else 1,
        )
        line = Line()
        with request.calling(call, line.close):
            sending.places.append(call.place)
            try:
                if request.may_keep(len(content), traces.MAX_CONTENT_BYTES):
                    call.messages = messages if isinstance(messages, list) else []
                with self._conversations.waiting(body, request):
                    answer = self._timed(request, call, content, sending, line)
                self._enter(request, call, answer)
                return answer
            finally:
                self._ended(request, call)

    def _timed(
        self,
        request: accounting.Request,
        call: accounting.Call,
        content: bytes,
        sending: Sending,
        line: Line,
    ) -> Answer:
        try:
            return self._exchange(request, call, content, sending, line)
        except Exception as error:
            call.error = str(error)[:500]
            call.reason = "timeout" if isinstance(error, TooSlow) else "connection"
            raise
        finally:
            call.seconds = time.monotonic() - call.started
            if request.remaining() <= 0:  # the deadline is the reason, whatever the call returned
                request.abort(request.too_late())
            # the request may have been ended meanwhile: stop, whatever the call returned
            if request.aborted is not None:
                call.reason = "ended"
                raise request.aborted

    def _exchange(
        self,
        request: accounting.Request,
        call: accounting.Call,
        content: bytes,
        sending: Sending,
        line: Line,
    ) -> Answer:
        # a call may not take longer than its request
        left = max(request.remaining(), 0.1)
        headers = {**request.carried.headers, **sending.headers, **self._headers}
        headers[loops.MARK_HEADER] = request.id
        streamed = None
        parts: list[bytes] = []
        seconds = min(left, sending.timeout or left)
        with self._transport.stream("POST", _PATH, content, headers, seconds, line) as reply:
            is_stream = reply.headers.get("content-type", "").startswith("text/event-stream")
            if call.is_streamed and is_stream and reply.status == 200:
                streamed = StreamedCompletion(sending.sink)
            for part in reply.parts:
                if streamed is None:
                    parts.append(part)
                else:
                    streamed.feed(part)
                # a byte now and then would keep the read from timing out for ever
                if request.aborted is not None or request.remaining() <= 0:
                    break
        if streamed is not None:
            if not streamed.is_whole:
                raise NoResponse("the stream of the answer ended early")
            parts = [json.dumps(streamed.completion()).encode()]
        return Answer(reply.status, reply.headers, b"".join(parts)).checked()

    def _enter(self, request: accounting.Request, call: accounting.Call, answer: Answer) -> None:
        call.status = answer.status
        if not call.failed:
            _enter_answer(call, answer.data)
            size = len(answer.raw)
            if request.may_keep(size, traces.MAX_CONTENT_BYTES):
                call.answers = _texts(answer.data)
            return
        call.error, call.reason = error_text(answer.data, answer.raw), _reason(call.status)
        # LiteLLM renames the headers of a model
        call.retry_after = answer.headers.get("retry-after") or answer.headers.get(
            "llm_provider-retry-after", ""
        )
        call.code = refusals.code(answer.data)
        if refusals.is_final(request, call):
            refusal = refusals.refusal(call)
            request.abort(refusal)
            raise request.aborted or refusal
        if call.status == 421:  # the guard's own answer to a loop, here or in another process
            request.abort(loops.loop(call.model))
            raise request.aborted or loops.loop(call.model)

    def pass_on(self, request: httpx2.Request) -> httpx2.Response:
        """Send another request of the SDK, for example for the model list. It is not recorded.

        Raises:
            NoResponse: there is no whole response.
        """
        base_path = httpx2.URL(self._settings.base_url).path.rstrip("/")
        path = request.url.raw_path.decode("ascii").removeprefix(f"{base_path}/")
        headers = {**request.headers, "accept-encoding": "identity"}
        status, own, raw = self._transport.send(
            request.method, path, request.read(), headers, self._settings.request_timeout
        )
        return httpx2.Response(status, headers=own, content=raw, request=request)

    def models(self) -> tuple[int, list[str], str]:
        """LiteLLM's model list: status, names, error text. Status 0 without a response."""
        try:
            status, _, raw = self._transport.send(
                "GET", "models", None, self._headers, _SHORT_TIMEOUT
            )
        except NoResponse as error:
            return 0, [], str(error)[:500]
        data = _json(raw)
        if not 200 <= status < 300:
            return status, [], error_text(data, raw)
        entries = data.get("data")
        if not isinstance(entries, list):
            return status, [], "its answer is not a model list"
        names = [entry.get("id") for entry in entries if isinstance(entry, dict)]
        return status, [name for name in names if isinstance(name, str)], ""

    def probe(self, base_model: str, text: str, answered: Callable[[str], None]) -> None:
        """Send a probe (see `loops`) in a thread. `answered` is called in it afterwards."""
        body = {
            "model": base_model,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": 1,
        }

        def send() -> None:
            watchdog.leave_abort_to_main()
            try:
                self._transport.send(
                    "POST", _PATH, json.dumps(body).encode(), self._headers, _SHORT_TIMEOUT
                )
            except NoResponse:
                pass  # only its arrival counts
            finally:
                answered(text)

        threading.Thread(target=send, name="probe", daemon=True).start()


class _SdkTransport(openai.DefaultHttpxClient):  # type: ignore[misc]
    """The SDK's HTTP client: calls of a request go through `Upstream.post`."""

    def __init__(self, upstream: Upstream) -> None:
        super().__init__(verify=False, trust_env=False)  # it opens no connection itself
        self._upstream = upstream

    def send(self, request: Any, **_options: Any) -> Any:
        owner = accounting.current.get()
        if owner is None or request.method != "POST" or not request.url.path.endswith(_PATH):
            with _as_httpx2(request):
                return self._upstream.pass_on(request)
        body, places = _json(request.content), list[int]()
        answer = self._answer(request, owner, body, places)
        owner[1].exchanges.append(_exchange(body, answer, places))
        return httpx2.Response(
            answer.status,
            headers=answer.headers,
            content=answer.raw,
            request=request,
        )

    def _answer(
        self,
        request: Any,
        owner: tuple[accounting.Request, Run],
        body: dict[str, Any],
        places: list[int],
    ) -> Answer:
        client, run = owner
        limits = [limit for limit in request.extensions.get("timeout", {}).values() if limit]
        is_whole = client.conversation.is_whole_in(body.get("messages"))
        body = client.parameters.of_call(
            body,
            answers=client.parameters.answers(traces.UNKNOWN_PURPOSE, is_whole=is_whole),
            has_tool_calls=is_whole and client.conversation.has_tool_calls,
            number=run.first_sample + run.samples_of(_question(body)),
        )
        with _as_httpx2(request):
            return self._upstream.call(
                client, body, Sending(max(limits, default=None), places=places)
            )


@contextmanager
def _as_httpx2(request: Any) -> Iterator[None]:
    """Raise what the SDK expects of an HTTP client."""
    try:
        yield
    except TooSlow as error:
        raise httpx2.ReadTimeout(str(error), request=request) from None
    except NoResponse as error:
        raise httpx2.ConnectError(str(error), request=request) from None


def _exchange(body: dict[str, Any], answer: Answer, places: list[int]) -> Exchange:
    """What a plugin asked, and what it got."""
    count, limit = body.get("n"), body.get("max_tokens")
    return Exchange(
        traces.UNKNOWN_PURPOSE,
        asked=count if isinstance(count, int) else 1,
        samples=exchanges.samples_of(answer.data) if answer.is_success else (),
        calls=places,
        failed=not answer.is_success,
        limit=limit if isinstance(limit, int) else 0,
        question=_question(body),
    )


def _question(body: dict[str, Any]) -> int:
    return hash(json.dumps(body, sort_keys=True))


def _may_pass(answer: Answer) -> bool:
    """Whether another try may help. The header is that of OpenAI's API."""
    said = answer.headers.get("x-should-retry")
    if said in ("true", "false"):
        return said == "true"
    return answer.status in _PASSING or answer.status >= 500


def _pause(attempt: int, headers: Mapping[str, str]) -> float:
    """Seconds until the next try: what the upstream asks for, or twice as long each time."""
    try:
        asked = float(headers.get("retry-after", ""))
    except ValueError:
        asked = 0.0
    if 0 < asked <= _LONGEST_RETRY_AFTER:
        return asked
    longest: float = min(_FIRST_PAUSE * 2**attempt, _MOST_PAUSE)
    return longest * random.uniform(0.75, 1)  # noqa: S311


def _status_error(answer: Answer, sent: httpx2.Request) -> openai.APIStatusError:
    """The SDK's exception for a status. Some strategies read its class and its text."""
    status, data = answer.status, answer.data
    kind = _ERRORS.get(
        status, openai.InternalServerError if status >= 500 else openai.APIStatusError
    )
    text = data or answer.raw.decode("utf-8", "replace")[:500]
    response = httpx2.Response(status, content=answer.raw, request=sent)
    return kind(
        f"Error code: {status} - {text}", response=response, body=data.get("error", data) or None
    )


class SdkClient:
    """The SDK's client for one request, in every thread of its strategy."""

    def __init__(self, sdk: openai.OpenAI, request: accounting.Request, run: Run) -> None:
        self._sdk, self._request, self._run = sdk, request, run
        self.chat = SimpleNamespace(completions=SimpleNamespace(create=self._create))

    def _create(self, **arguments: Any) -> Any:
        with accounting.attributed_to(self._request, self._run):
            return self._sdk.chat.completions.create(**arguments)

    def __getattr__(self, name: str) -> Any:
        # plugins may use any part of the SDK's client
        return getattr(self._sdk, name)
