"""A model that takes its time, streams when asked to, and notices when a caller leaves."""

from __future__ import annotations

import itertools
import json
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from optictl.guard import traces
from optictl.proof.standin import completion
from testing.support import Server, guarded

#: Seconds between two looks at the caller.
_LOOK = 0.02


@dataclass
class Call:
    """A call as it came. `began`, `ended`, `left`: seconds of the monotonic clock, 0 if not yet."""

    body: dict[str, Any]
    headers: dict[str, str]
    began: float = field(default_factory=time.monotonic)
    ended: float = 0.0
    left: float = 0.0

    @property
    def is_open(self) -> bool:
        return not self.ended and not self.left


@dataclass
class Failure:
    """An error in place of an answer. `after`: chunks of a stream that are sent before it."""

    status: int
    body: dict[str, Any]
    after: int = 0


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    #: many calls may come at once
    request_queue_size = 1024


class SlowModel:
    """An upstream on a free port.

    Args:
        seconds: how long a call takes.
        chunks: in how many parts a stream comes, evenly over that time.
        answer: the text of a call, or a failure, from its body and its number. None: the stand-in.
        honours_n: whether it returns several choices.
    """

    def __init__(
        self,
        seconds: float,
        chunks: int = 10,
        answer: Callable[[dict[str, Any], int], str | Failure | None] = lambda _body, _number: None,
        *,
        honours_n: bool = True,
        refuses_n: bool = False,
    ) -> None:
        self.seconds, self.chunks, self.answer = seconds, chunks, answer
        self.honours_n, self.refuses_n = honours_n, refuses_n
        #: whether it does as `stream` says
        self.streams = True
        #: what LiteLLM makes of a server that does not: a stream without a text
        self.streams_empty = False
        #: the finish_reason of a call
        self.finish: Callable[[dict[str, Any]], str] = lambda _body: "stop"
        self.calls: list[Call] = []
        self._numbers = itertools.count()
        self._server = _Server(("127.0.0.1", 0), self._handler())

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    @property
    def open_calls(self) -> int:
        return sum(call.is_open for call in self.calls)

    def most_at_once(self) -> int:
        """The most calls that were open at one moment."""
        ends = [(call.ended or call.left, -1) for call in self.calls]
        moments = sorted([(call.began, 1) for call in self.calls] + ends)
        return max(itertools.accumulate(change for _, change in moments))

    @contextmanager
    def running(self) -> Iterator[SlowModel]:
        """Serve until the block ends."""
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()

    def _whole(self, body: dict[str, Any]) -> dict[str, Any] | Failure:
        number = next(self._numbers)
        count = int(body.get("n") or 1)
        if count > 1 and self.refuses_n:
            return Failure(400, {"error": {"message": "n must be 1", "code": "400"}})
        text = self.answer(body, number)
        if isinstance(text, Failure):
            return text
        if text is None and traces.purpose("bon", body.get("messages")) != "rating":
            text = f"answer {number} of the slow model to {len(body['messages'])} messages"
        whole = completion(body, text)
        for choice in whole["choices"]:
            choice["finish_reason"] = self.finish(body)
        if count > 1:
            for place, choice in enumerate(whole["choices"]):
                choice["message"]["content"] += f", choice {place}"
            if not self.honours_n:
                del whole["choices"][1:]
        return whole

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        model = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                self._send(200, {"object": "list", "data": [{"id": "jerry-xl"}]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                headers = {name.lower(): value for name, value in self.headers.items()}
                call = Call(body, headers)
                model.calls.append(call)
                whole = model._whole(body)
                is_stream = model.streams and bool(body.get("stream"))
                with suppress(OSError):
                    if isinstance(whole, Failure) and not (is_stream and whole.after):
                        self._send(whole.status, whole.body)
                    elif is_stream:
                        self._stream(call, whole)
                    elif self._wait(call, model.seconds):
                        self._send(200, whole)
                if not call.left:
                    call.ended = time.monotonic()

            def _wait(self, call: Call, seconds: float) -> bool:
                """Whether the caller is there after `seconds`."""
                until = time.monotonic() + seconds
                while (left := until - time.monotonic()) > 0:
                    ready, _, _ = select.select([self.connection], [], [], min(left, _LOOK))
                    if ready and not self._is_there():
                        call.left = time.monotonic()
                        self.close_connection = True
                        return False
                return True

            def _is_there(self) -> bool:
                try:
                    return bool(self.connection.recv(1, socket.MSG_PEEK))
                except OSError:
                    return False

            def _send(self, status: int, body: Any) -> None:
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def _stream(self, call: Call, whole: dict[str, Any] | Failure) -> None:
                self.send_response(200)
                self.send_header("content-type", "text/event-stream")
                self.send_header("connection", "close")
                self.end_headers()
                if model.streams_empty:
                    self._event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
                    self.close_connection = True
                    return
                text = "the first words" if isinstance(whole, Failure) else _text(whole)
                size = -(-len(text) // model.chunks)
                parts = [text[start : start + size] for start in range(0, len(text), size)]
                if isinstance(whole, Failure):
                    parts = parts[: whole.after]
                for place, part in enumerate(parts, 1):
                    due = call.began + place * model.seconds / len(parts)
                    if not self._wait(call, due - time.monotonic()):
                        return
                    self._event({"choices": [{"index": 0, "delta": {"content": part}}]})
                if isinstance(whole, Failure):
                    if whole.body:
                        self._event(whole.body)
                else:
                    finish = whole["choices"][0]["finish_reason"]
                    last = {"index": 0, "delta": {}, "finish_reason": finish}
                    self._event({"choices": [last]})
                    self._event({"choices": [], "usage": whole["usage"]})
                    self.wfile.write(b"data: [DONE]\n\n")
                self.close_connection = True

            def _event(self, data: dict[str, Any]) -> None:
                chunk = {"id": "chatcmpl-slow", "object": "chat.completion.chunk", **data}
                self.wfile.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")

            def log_message(self, format: str, *args: Any) -> None:
                """Silent."""

        return Handler


def _text(whole: dict[str, Any]) -> str:
    return str(whole["choices"][0]["message"]["content"])


@contextmanager
def served(
    release: Path, strategies: Sequence[str], extra: Sequence[str], model: SlowModel
) -> Iterator[tuple[Server, SlowModel]]:
    """A service in front of the model."""
    with (
        model.running(),
        guarded(release, model.base_url, strategies=strategies, extra=extra) as server,
    ):
        yield server, model
