"""The upstream client: one HTTP client per process. It records every call.

OptiLLM 0.3.12 to 0.4.0 builds an HTTP client with a TLS context for every request, which takes
about
30 ms of CPU time under the GIL.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import httpx2
import openai
from openai._constants import DEFAULT_CONNECTION_LIMITS
from openai.types.chat import ChatCompletion

from . import ledger, traces
from .settings import Settings

#: Arguments of plain JSON. A call with any other argument uses the SDK's full code.
_PLAIN = {"model", "messages", "n", "max_tokens", "max_completion_tokens", "temperature", "top_p"}


def _json(raw: bytes) -> dict[str, Any]:
    try:
        data = json.loads(raw)
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}


def error_text(raw: bytes) -> str:
    """The upstream's error message, at most 500 characters."""
    error = _json(raw).get("error")
    text = error.get("message") if isinstance(error, dict) else error
    return str(text or raw.decode("utf-8", "replace")).strip()[:500]


def _number(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _enter_answer(call: ledger.Call, body: dict[str, Any]) -> None:
    usage = body.get("usage") or {}
    call.completions = len(body.get("choices") or ())
    call.prompt_tokens = _number(usage.get("prompt_tokens"))
    call.completion_tokens = _number(usage.get("completion_tokens"))
    details = usage.get("completion_tokens_details")
    call.reasoning_tokens = (
        _number(details.get("reasoning_tokens")) if isinstance(details, dict) else 0
    )


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


class CountingClient(openai.DefaultHttpxClient):  # type: ignore[misc]
    """The SDK's HTTP client. `send` records each call in its request.

    `ended`: called after each call.
    """

    def __init__(
        self, ended: Callable[[ledger.Request, ledger.Call], None], **options: Any
    ) -> None:
        super().__init__(**options)
        self._ended = ended

    def send(self, request: Any, **options: Any) -> Any:
        owner = ledger.current.get()
        if owner is None or request.method != "POST":
            return super().send(request, **options)
        body = _json(request.content)
        messages = body.get("messages")
        call = ledger.Call(
            model=str(body.get("model", "")), purpose=traces.purpose(owner.strategy, messages)
        )
        owner.enter(call)
        if owner.keeps_content and owner.may_keep(len(request.content), traces.MAX_CONTENT_BYTES):
            call.messages = messages if isinstance(messages, list) else []
        try:
            return self._send_for(owner, call, body, request, options)
        finally:
            call.is_open = False
            self._ended(owner, call)

    def _send_for(
        self,
        owner: ledger.Request,
        call: ledger.Call,
        body: dict[str, Any],
        request: Any,
        options: dict[str, Any],
    ) -> Any:
        # a call may not take longer than its request
        left = max(owner.remaining(), 0.1)
        limits = request.extensions.get("timeout", {})
        request.extensions["timeout"] = {
            k: min(left, limits.get(k) or left) for k in ("connect", "read", "write", "pool")
        }
        try:
            with ledger.in_flight.waiting(ledger.fingerprint(body.get("messages") or ()), owner):
                response = super().send(request, **options)
                raw = response.read()
        except Exception as error:
            call.error = f"{type(error).__name__}: {error}"[:500]
            call.reason = "timeout" if isinstance(error, httpx2.TimeoutException) else "connection"
            raise
        finally:
            call.seconds = time.monotonic() - call.started
            if owner.remaining() <= 0:  # the deadline is the reason, whatever the call returned
                owner.abort(owner.too_late())
            # the request may have been ended meanwhile: stop, whatever the call returned
            if owner.aborted is not None:
                call.reason = "ended"
                raise owner.aborted
        call.status = response.status_code
        if call.failed:
            call.error, call.reason = error_text(raw), _reason(call.status)
            # LiteLLM renames the headers of a model
            call.retry_after = response.headers.get("retry-after") or response.headers.get(
                "llm_provider-retry-after", ""
            )
        else:
            answer = _json(raw)
            _enter_answer(call, answer)
            if owner.keeps_content and owner.may_keep(len(raw), traces.MAX_CONTENT_BYTES):
                call.answers = _texts(answer)
        return response


def build(
    settings: Settings, upstream_key: str, ended: Callable[[ledger.Request, ledger.Call], None]
) -> openai.OpenAI:
    """The only OpenAI client of the process. `trust_env=False`: proxy variables have no effect."""
    # without TLS no certificates are needed, and loading them takes half of this function's time
    way: dict[str, Any] = {"verify": not settings.base_url.startswith("http://")}
    if settings.upstream_socket:
        # the library of the SDK's own client class
        way["transport"] = httpx2.HTTPTransport(
            uds=settings.upstream_socket, limits=DEFAULT_CONNECTION_LIMITS, **way
        )
    client = openai.OpenAI(
        api_key=upstream_key,
        base_url=settings.base_url,
        max_retries=settings.max_retries,
        timeout=settings.request_timeout,
        http_client=CountingClient(
            ended,
            trust_env=False,
            base_url=settings.base_url,
            timeout=settings.request_timeout,
            follow_redirects=False,  # a redirect could send prompts off this machine
            **way,
        ),
    )
    completions: Any = client.chat.completions
    completions.create = _straight(client, completions.create)
    return client


def _straight(client: openai.OpenAI, create: Callable[..., Any]) -> Callable[..., Any]:
    """`create` without the SDK's transformation of the body, a fifth of the CPU time of a call.

    The SDK compares every message with every message type to rename fields. Chat completions have
    no such fields. `post` is the SDK's public method for a complete body.
    """

    def straight(*, timeout: float = client.timeout, **body: Any) -> Any:
        if not {"model", "messages"} <= body.keys() <= _PLAIN:
            return create(timeout=timeout, **body)
        return client.post(
            "/chat/completions", cast_to=ChatCompletion, body=body, options={"timeout": timeout}
        )

    return straight


class BoundClient:
    """An upstream client for one request, in every thread of its strategy."""

    def __init__(self, client: Any, request: ledger.Request) -> None:
        self._client, self._request = client, request
        self.chat = SimpleNamespace(completions=SimpleNamespace(create=self._create))

    def _create(self, **arguments: Any) -> Any:
        with ledger.attributed_to(self._request):
            return self._client.chat.completions.create(**arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)
