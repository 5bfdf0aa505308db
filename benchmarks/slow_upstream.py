"""An upstream as slow as a model: `python -m benchmarks.slow_upstream MODE [CHUNKS]`.

A text has 20 chunks and takes 1 s, also when it is streamed; so does a rating. MODE is what happens
to an `n` above 1: honour, refuse (400, at once) or ignore. CHUNKS: those of the final text of
`moa`. It prints its port; GET /count tells of its calls.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.upstream import MODELS
from optictl.guard import traces

MODES = ("honour", "refuse", "ignore")
#: Chunks of a second, and so those of a usual text.
RATE = 20
#: Every text ends with it: samples agree.
_END = ("Answer:", "42")
_HEAD = b"HTTP/1.1 %d %s\r\ncontent-type: %s\r\n%s\r\n\r\n"


@dataclass
class Calls:
    """The calls so far.

    `open`: now, `most`: at the same time. `closed`: when a client left an open call, by the
    monotonic clock, which all processes share.
    """

    started: int = 0
    open: int = 0
    most: int = 0
    closed: list[float] = field(default_factory=list)

    @contextmanager
    def running(self) -> Iterator[None]:
        """One call."""
        self.started += 1
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            yield
        except asyncio.CancelledError:
            self.closed.append(time.monotonic())
            raise
        finally:
            self.open -= 1


@dataclass
class Model:
    """What it answers. `final_chunks`: those of the final text of moa."""

    mode: str = "honour"
    final_chunks: int = RATE
    calls: Calls = field(default_factory=Calls)
    _texts: int = 0

    def refuses(self, body: dict[str, Any]) -> bool:
        return self.mode == "refuse" and (body.get("n") or 1) > 1

    def texts(self, body: dict[str, Any]) -> list[list[str]]:
        """The texts of the choices in chunks. No two are the same."""
        messages = body.get("messages")
        count = int(body.get("n") or 1) if self.mode == "honour" else 1
        is_final = traces.purpose("moa", messages) == "final"
        length = self.final_chunks if is_final else RATE
        texts = []
        for _ in range(count):
            self._texts += 1
            if traces.purpose("bon", messages) == "rating":
                texts.append([str(self._texts % 10)])
            else:
                words = ["Text", str(self._texts), *["and"] * (length - 4), *_END]
                texts.append([f"{word} " for word in words])
        return texts


def seconds(texts: Sequence[Sequence[str]]) -> float:
    """How long the longest text takes; a rating takes as long as a usual text."""
    return max(RATE, *map(len, texts)) / RATE


def completion(body: dict[str, Any], texts: Sequence[Sequence[str]]) -> dict[str, Any]:
    """A whole chat.completion."""
    choices = [
        {
            "index": place,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": "".join(text).strip()},
        }
        for place, text in enumerate(texts)
    ]
    return {**_head(body, "chat.completion"), "choices": choices, "usage": _usage(texts)}


def chunks(body: dict[str, Any], texts: Sequence[Sequence[str]]) -> Iterator[dict[str, Any]]:
    """The same as chunks: one for each word of all texts, then the end, then usage if wanted."""
    head = _head(body, "chat.completion.chunk")
    for at in range(max(map(len, texts))):
        role = {} if at else {"role": "assistant"}
        choices = [
            {"index": place, "delta": {**role, "content": text[at]}, "finish_reason": None}
            for place, text in enumerate(texts)
            if at < len(text)
        ]
        yield {**head, "choices": choices}
    ends = [{"index": place, "delta": {}, "finish_reason": "stop"} for place in range(len(texts))]
    yield {**head, "choices": ends}
    if (body.get("stream_options") or {}).get("include_usage"):
        yield {**head, "choices": [], "usage": _usage(texts)}


def _head(body: dict[str, Any], kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{time.monotonic_ns()}",
        "object": kind,
        "created": int(time.time()),
        "model": body.get("model"),
    }


def _usage(texts: Sequence[Sequence[str]]) -> dict[str, int]:
    completed = sum(map(len, texts))
    return {"prompt_tokens": 10, "completion_tokens": completed, "total_tokens": 10 + completed}


class Connection(asyncio.Protocol):
    """A connection: complete requests in, complete answers or streams out."""

    def __init__(self, model: Model) -> None:
        self.model, self.received = model, b""
        self.answering: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if self.answering is not None:
            self.answering.cancel()

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, end, rest = self.received.partition(b"\r\n\r\n")
        _, found, after = head.lower().partition(b"content-length:")
        length = int(after.split(b"\r\n", 1)[0]) if found else 0
        if not end or len(rest) < length:
            return
        # clients wait for an answer before they send the next request
        body, self.received = rest[:length], rest[length:]
        self.answering = asyncio.get_running_loop().create_task(self._answer(head, body))

    async def _answer(self, head: bytes, content: bytes) -> None:
        calls = self.model.calls
        if head.startswith(b"GET"):
            self._whole(asdict(calls) if head.startswith(b"GET /count") else MODELS)
            return
        body = json.loads(content)
        with calls.running():
            if self.model.refuses(body):
                problem = {"message": "n above 1 is not supported", "type": "invalid_request_error"}
                self._whole({"error": problem}, 400)
                return
            texts = self.model.texts(body)
            if body.get("stream"):
                await self._stream(body, texts)
            else:
                await asyncio.sleep(seconds(texts))
                self._whole(completion(body, texts))

    def _whole(self, data: object, status: int = 200) -> None:
        text = json.dumps(data).encode()
        length = b"content-length: %d" % len(text)
        reason = b"OK" if status == 200 else b"Bad Request"
        self.transport.write(_HEAD % (status, reason, b"application/json", length) + text)

    async def _stream(self, body: dict[str, Any], texts: Sequence[Sequence[str]]) -> None:
        loop = asyncio.get_running_loop()
        since = loop.time()
        self.transport.write(
            _HEAD % (200, b"OK", b"text/event-stream", b"transfer-encoding: chunked")
        )
        longest = max(map(len, texts))
        # the chunk of a rating comes at the end
        pause = seconds(texts) / longest
        for place, chunk in enumerate(chunks(body, texts), start=1):
            if place <= longest:
                await asyncio.sleep(since + place * pause - loop.time())
            self._event(json.dumps(chunk))
        self._event("[DONE]")
        self.transport.write(b"0\r\n\r\n")

    def _event(self, text: str) -> None:
        event = f"data: {text}\n\n".encode()
        self.transport.write(b"%x\r\n%s\r\n" % (len(event), event))


async def _serve(model: Model) -> None:
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(model), "127.0.0.1", 0, backlog=4096
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(Model(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else RATE)))
