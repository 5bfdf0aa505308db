"""A stand-in for LiteLLM: an OpenAI-compatible upstream that answers at once and without a model.

It is what `optictl demo` runs against and what a new release is proven with; it says so
in every answer but a rating, which is a number. Tests script it: `respond` may replace any answer.
"""

from __future__ import annotations

import json
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from optictl.guard import tool_calls, traces

LABEL = "optictl stand-in"


@dataclass(frozen=True)
class Reply:
    """What is sent back. `delay` is seconds before the first byte.

    `content_type`: that of a body of bytes.
    """

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    content_type: str = "application/json"


@dataclass(frozen=True)
class Seen:
    """A request as it arrived. `body` is the parsed JSON, or None."""

    method: str
    path: str
    headers: dict[str, str]
    body: dict[str, Any] | None

    @property
    def model(self) -> str:
        return str((self.body or {}).get("model", ""))


def _words(messages: list[Any]) -> int:
    return sum(len(str(m.get("content") or "").split()) for m in messages if isinstance(m, dict))


def _rating(messages: list[Any]) -> str | None:
    """The rating of the last candidate, None if none is asked for.

    It is the number with which the stand-in began it, so that the ratings of several differ.
    """
    texts = [str(m.get("content") or "") for m in messages if isinstance(m, dict)]
    if len(texts) < 2 or traces.purpose("bon", messages) != "rating":
        return None
    first = texts[-2].partition(" ")[0]
    return first if first.isdecimal() else "5"


def completion(body: dict[str, Any], text: str | None = None) -> dict[str, Any]:
    """A whole chat.completion for a request body; tokens are counted as words."""
    count = int(body.get("n") or 1)
    messages = body.get("messages") or []
    fixed = text if text is not None else _rating(messages)
    answers = [
        fixed if fixed is not None else f"{7 + i % 3} This is answer {i + 1} of the {LABEL}."
        for i in range(count)
    ]
    prompt, completed = _words(messages), sum(len(answer.split()) for answer in answers)
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": body.get("model"),
        "choices": [
            {
                "index": i,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": answer},
            }
            for i, answer in enumerate(answers)
        ],
        "usage": {
            "prompt_tokens": prompt,
            "completion_tokens": completed,
            "total_tokens": prompt + completed,
        },
    }


def _encoded(seen: Seen, reply: Reply) -> tuple[str, bytes]:
    """The content type and the bytes of a reply. A completion is streamed if that was asked for."""
    if isinstance(reply.body, bytes):
        return reply.content_type, reply.body
    is_completion = isinstance(reply.body, dict) and isinstance(reply.body.get("choices"), list)
    if is_completion and seen.body and seen.body.get("stream") and reply.status == 200:
        return "text/event-stream", _events(reply.body)
    return "application/json", json.dumps(reply.body).encode()


def _events(whole: dict[str, Any]) -> bytes:
    """A completion as server-sent events: a chunk for each word, and the token counts."""
    head = {name: whole.get(name) for name in ("id", "created", "model")}
    chunks: list[dict[str, Any]] = []
    for choice in whole["choices"]:
        message, index = choice.get("message") or {}, choice.get("index", 0)
        parts = [("reasoning_content", message.get("reasoning_content"))]
        parts += [
            ("content", word) for word in re.findall(r"\s*\S+\s*", message.get("content") or "")
        ]
        start = {"role": "assistant", "content": "" if message.get("content") is not None else None}
        parts.append(("refusal", message.get("refusal")))
        deltas = [start, *({name: part} for name, part in parts if part)]
        deltas += tool_calls.chunks(tool_calls.of(message), size=16)
        chunks += [
            {"choices": [{"index": index, "delta": delta, "finish_reason": None}]}
            for delta in deltas
        ]
        end = {"index": index, "delta": {}, "finish_reason": choice.get("finish_reason")}
        if choice.get("logprobs"):
            end["logprobs"] = choice["logprobs"]
        chunks.append({"choices": [end]})
    chunks.append({"choices": [], "usage": whole.get("usage")})
    lines = [json.dumps({**head, "object": "chat.completion.chunk", **chunk}) for chunk in chunks]
    return "".join(f"data: {line}\n\n" for line in [*lines, "[DONE]"]).encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    #: many clients may come at once
    request_queue_size = 1024


class StandIn:
    """An upstream on a free loopback port.

    `respond(seen)` may return a Reply to replace the default answer, or None to keep it.
    `seen` collects every request in the order of arrival. `key`, if given, is demanded as
    the bearer. Nothing is ever written to disk.
    """

    def __init__(
        self,
        models: tuple[str, ...] = ("jerry-xl",),
        key: str | None = None,
        respond: Callable[[Seen], Reply | None] | None = None,
        port: int = 0,
    ) -> None:
        self.models, self.key, self.respond = models, key, respond
        self.seen: list[Seen] = []
        self._server = _Server(("127.0.0.1", port), self._handler())

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def calls(self) -> list[Seen]:
        """The completions asked for so far."""
        return [s for s in self.seen if s.method == "POST"]

    @contextmanager
    def running(self) -> Iterator[StandIn]:
        """Serve in a thread until the block ends."""
        thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()

    def _answer(self, seen: Seen) -> Reply:
        if self.respond is not None and (scripted := self.respond(seen)) is not None:
            return scripted
        if self.key is not None and seen.headers.get("authorization") != f"Bearer {self.key}":
            return Reply(
                401, {"error": {"message": "wrong key", "type": "auth_error", "code": "401"}}
            )
        if seen.path == "/v1/models":
            return Reply(
                body={"object": "list", "data": [self._model(name) for name in self.models]}
            )
        if seen.path != "/v1/chat/completions" or seen.body is None:
            return Reply(404, {"error": {"message": "not found", "code": "404"}})
        if seen.model not in self.models:
            return Reply(400, {"error": {"message": f"unknown model {seen.model}", "code": "400"}})
        return Reply(body=completion(seen.body))

    @staticmethod
    def _model(name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": 0, "owned_by": LABEL}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        standin = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def _serve(self) -> None:
                raw = self.rfile.read(int(self.headers.get("content-length") or 0))
                try:
                    body = json.loads(raw) if raw else None
                except ValueError:
                    body = None
                headers = {name.lower(): value for name, value in self.headers.items()}
                seen = Seen(
                    self.command, self.path, headers, body if isinstance(body, dict) else None
                )
                standin.seen.append(seen)
                reply = standin._answer(seen)
                time.sleep(reply.delay)
                kind, data = _encoded(seen, reply)
                try:
                    self.send_response(reply.status)
                    self.send_header("content-type", kind)
                    self.send_header("content-length", str(len(data)))
                    for name, value in reply.headers.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(data)
                except OSError:
                    self.close_connection = True  # the caller gave up waiting

            do_GET = do_POST = _serve

            def log_message(self, format: str, *args: Any) -> None:
                """Silent: the terminal belongs to optictl."""

        return Handler
