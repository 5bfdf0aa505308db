"""The upstream client: one HTTP client per process. It marks and records every call.

OptiLLM 0.3.12 to 0.4.0 builds an HTTP client with a TLS context for every request, and the SDK
validates every answer. Both take far more CPU time than the call itself.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from types import SimpleNamespace
from typing import Any

import httpx2
import openai

from . import accounting, exchanges, loops, traces, watchdog
from .completions import Usage
from .exchanges import Exchange
from .fixes import FixedClient, Policy, SampleSupport
from .settings import Settings

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


@dataclass(frozen=True)
class Answer:
    """A response of the upstream. `raw`: the whole body. `request`: as it was sent."""

    status: int
    headers: httpx2.Headers
    raw: bytes
    request: httpx2.Request

    @cached_property
    def data(self) -> dict[str, Any]:
        """The JSON object of the body, {} without one."""
        return _json(self.raw)

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300


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
    ) -> None:
        self._settings, self._ended, self._conversations = settings, ended, conversations
        self._headers = {
            "Authorization": f"Bearer {key}",
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",  # it is on this machine
        }
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=128)
        # without TLS no certificates are needed, and loading them takes long
        way: dict[str, Any] = {"verify": not settings.base_url.startswith("http://")}
        if settings.upstream_socket:
            way["transport"] = httpx2.HTTPTransport(
                uds=settings.upstream_socket, limits=limits, **way
            )
        # parsed once: httpx2 would parse and join it for every call
        self._url = httpx2.URL(f"{settings.base_url.rstrip('/')}/{_PATH}")
        self._http = httpx2.Client(
            base_url=settings.base_url,
            timeout=settings.request_timeout,
            limits=limits,
            trust_env=False,  # proxy variables have no effect
            follow_redirects=False,  # a redirect could send prompts off this machine
            **way,
        )
        self._support = SampleSupport()
        self._policy = Policy(frozenset(settings.effect), settings.budget_tokens)
        self._sdk = openai.OpenAI(
            api_key=key,
            base_url=settings.base_url,
            max_retries=settings.max_retries,
            timeout=settings.request_timeout,
            http_client=_SdkTransport(self),
        )

    def client(self, request: accounting.Request, *, plain: bool) -> Any:
        """The client for the strategy of a request.

        `plain`: without the SDK, for strategies that read answers only as `completions` has them.
        The SDK makes the retries, so it is used when there are any.
        """
        if not plain:
            request.records_calls = True
            return SdkClient(self._sdk, request)
        send = self._retried if self._settings.max_retries else self._plain
        is_plain = request.strategy == "none"  # a model without a strategy has nothing to fix
        policy = Policy(frozenset()) if is_plain else self._policy
        request.votes_on_answers = "votes" in policy.fixes
        return FixedClient(request, policy, self._support, partial(send, request))

    def _plain(
        self, request: accounting.Request, body: dict[str, Any], options: Mapping[str, Any]
    ) -> dict[str, Any]:
        """One call without the SDK, which raises the SDK's exceptions."""
        try:
            answer = self.post(
                request, body, options["timeout"], options["headers"], options["calls"]
            )
        except httpx2.TimeoutException as error:
            raise openai.APITimeoutError(request=error.request) from None
        except httpx2.HTTPError as error:
            raise openai.APIConnectionError(request=error.request) from None
        if not answer.is_success:
            raise _status_error(answer)
        return answer.data

    def _retried(
        self, request: accounting.Request, body: dict[str, Any], options: Mapping[str, Any]
    ) -> dict[str, Any]:
        """One call with the SDK's retries."""
        with accounting.attributed_to(request), accounting.placed_in(options["calls"]):
            answer = self._sdk.chat.completions.with_raw_response.create(
                messages=body["messages"],
                model=body["model"],
                timeout=options["timeout"] or openai.NOT_GIVEN,
                extra_headers=options["headers"],
                extra_body=body,
            )
        return _json(answer.content)

    def post(
        self,
        request: accounting.Request,
        body: dict[str, Any],
        timeout: float | None = None,
        headers: Mapping[str, str] | None = None,
        places: list[int] | None = None,
    ) -> Answer:
        """Send one call of a request, and record it. Returns the answer, which may be an error.

        `places`: where the place of the call is added.

        Raises:
            Abort: the request has ended.
            httpx2.HTTPError: there is no response.
        """
        messages = body.get("messages")
        call = accounting.Call(
            model=str(body.get("model", "")), purpose=traces.purpose(request.strategy, messages)
        )
        request.enter(call)
        if places is not None:
            places.append(call.place)
        try:
            content = json.dumps(loops.marked(body, request.id)).encode()
            if request.keeps_content and request.may_keep(len(content), traces.MAX_CONTENT_BYTES):
                call.messages = messages if isinstance(messages, list) else []
            return self._send(request, call, content, messages, timeout, headers or {})
        finally:
            call.is_open = False
            self._ended(request, call)

    def _send(
        self,
        request: accounting.Request,
        call: accounting.Call,
        content: bytes,
        messages: Any,
        timeout: float | None,
        headers: Mapping[str, str],
    ) -> Answer:
        # a call may not take longer than its request
        left = max(request.remaining(), 0.1)
        try:
            with self._conversations.waiting(messages or (), request):
                answer = self._exchange(
                    request,
                    content,
                    {**headers, **self._headers, loops.MARK_HEADER: request.id},
                    min(left, timeout or left),
                )
        except Exception as error:
            call.error = f"{type(error).__name__}: {error}"[:500]
            call.reason = "timeout" if isinstance(error, httpx2.TimeoutException) else "connection"
            raise
        finally:
            call.seconds = time.monotonic() - call.started
            if request.remaining() <= 0:  # the deadline is the reason, whatever the call returned
                request.abort(request.too_late())
            # the request may have been ended meanwhile: stop, whatever the call returned
            if request.aborted is not None:
                call.reason = "ended"
                raise request.aborted
        self._enter(request, call, answer)
        return answer

    def _exchange(
        self, request: accounting.Request, content: bytes, headers: dict[str, str], timeout: float
    ) -> Answer:
        with self._http.stream(
            "POST", self._url, content=content, headers=headers, timeout=timeout
        ) as response:
            parts = []
            for part in response.iter_raw():
                parts.append(part)
                # a byte now and then would keep the read from timing out for ever
                if request.aborted is not None or request.remaining() <= 0:
                    break
        return Answer(response.status_code, response.headers, b"".join(parts), response.request)

    def _enter(self, request: accounting.Request, call: accounting.Call, answer: Answer) -> None:
        call.status = answer.status
        if not call.failed:
            _enter_answer(call, answer.data)
            size = len(answer.raw)
            if request.keeps_content and request.may_keep(size, traces.MAX_CONTENT_BYTES):
                call.answers = _texts(answer.data)
            return
        call.error, call.reason = error_text(answer.data, answer.raw), _reason(call.status)
        # LiteLLM renames the headers of a model
        call.retry_after = answer.headers.get("retry-after") or answer.headers.get(
            "llm_provider-retry-after", ""
        )
        if call.status == 421:  # the guard's own answer to a loop, here or in another process
            request.abort(loops.loop(call.model))
            raise request.aborted or loops.loop(call.model)

    def pass_on(self, request: httpx2.Request) -> httpx2.Response:
        """Send another request of the SDK, for example for the model list. It is not recorded."""
        return self._http.send(request)

    def models(self) -> tuple[int, list[str], str]:
        """LiteLLM's model list: status, names, error text. Status 0 without a response."""
        try:
            response = self._http.get("models", headers=self._headers, timeout=_SHORT_TIMEOUT)
        except httpx2.HTTPError as error:
            return 0, [], f"{type(error).__name__}: {error}"[:500]
        data = _json(response.content)
        if not response.is_success:
            return response.status_code, [], error_text(data, response.content)
        entries = data.get("data")
        if not isinstance(entries, list):
            return response.status_code, [], "its answer is not a model list"
        names = [entry.get("id") for entry in entries if isinstance(entry, dict)]
        return response.status_code, [name for name in names if isinstance(name, str)], ""

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
                self._http.post(
                    _PATH,
                    content=json.dumps(body).encode(),
                    headers=self._headers,
                    timeout=_SHORT_TIMEOUT,
                )
            except httpx2.HTTPError:
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
            return self._upstream.pass_on(request)
        limits = [limit for limit in request.extensions.get("timeout", {}).values() if limit]
        body, places = _json(request.content), accounting.places.get()
        places = [] if places is None else places
        answer = self._upstream.post(owner, body, max(limits, default=None), places=places)
        if owner.records_calls:
            owner.run.exchanges.append(_exchange(body, answer, places))
        return httpx2.Response(
            answer.status,
            headers=answer.headers,
            content=answer.raw,
            request=request,
        )


def _exchange(body: dict[str, Any], answer: Answer, places: list[int]) -> Exchange:
    """What a plugin asked, and what it got."""
    count = body.get("n")
    return Exchange(
        traces.UNKNOWN_PURPOSE,
        asked=count if isinstance(count, int) else 1,
        samples=exchanges.samples_of(answer.data) if answer.is_success else (),
        calls=places,
        failed=not answer.is_success,
        question=hash(answer.request.content),
    )


def _status_error(answer: Answer) -> openai.APIStatusError:
    """The SDK's exception for a status. Some strategies read its class and its text."""
    status, data = answer.status, answer.data
    kind = _ERRORS.get(
        status, openai.InternalServerError if status >= 500 else openai.APIStatusError
    )
    text = data or answer.raw.decode("utf-8", "replace")[:500]
    response = httpx2.Response(status, content=answer.raw, request=answer.request)
    return kind(
        f"Error code: {status} - {text}", response=response, body=data.get("error", data) or None
    )


class SdkClient:
    """The SDK's client for one request, in every thread of its strategy."""

    def __init__(self, sdk: openai.OpenAI, request: accounting.Request) -> None:
        self._sdk, self._request = sdk, request
        self.chat = SimpleNamespace(completions=SimpleNamespace(create=self._create))

    def _create(self, **arguments: Any) -> Any:
        with accounting.attributed_to(self._request):
            return self._sdk.chat.completions.create(**arguments)

    def __getattr__(self, name: str) -> Any:
        # plugins may use any part of the SDK's client
        return getattr(self._sdk, name)
