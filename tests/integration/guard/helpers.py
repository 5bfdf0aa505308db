"""What the tests of the guard share: a service with its upstream, and readers of answers."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from optictl.proof.standin import Reply, Seen, StandIn, completion
from testing.support import PROXY_KEY, UPSTREAM_KEY, Server, bare, guarded, wait_until

#: Calls that one request of each strategy causes, when every answer is good.
CALLS = {"moa": 3, "bon": 4, "self_consistency": 5, "plansearch": 4}
#: The version of the OptiLLM under test. Later ones do not have every defect of bare OptiLLM.
OPTILLM = tuple(map(int, os.environ.get("OPTICTL_TEST_OPTILLM", "0.3.12").split(".")))
#: Stands in prompts, so that a log can be searched for it.
MARK = "xyzzy-prompt-mark"
#: What OptiLLM answers with status 200 when it got nothing from the upstream.
MASKED = "Error: Could not generate any completions"
BOOM = Reply(
    500, {"error": {"message": "the model fell over", "type": "server_error", "code": "500"}}
)


@dataclass
class Pair:
    """A running OptiLLM and the stand-in behind it."""

    server: Server
    upstream: StandIn

    def fresh(self) -> Pair:
        """The same pair with nothing seen and nothing scripted."""
        self.upstream.seen.clear()
        self.upstream.respond = None
        return self

    @property
    def bearers(self) -> set[str]:
        return {seen.headers.get("authorization", "") for seen in self.upstream.seen}

    @property
    def models(self) -> set[str]:
        return {seen.model for seen in self.upstream.seen if seen.method == "POST"}


@contextmanager
def guarded_pair(
    release: Path, models: tuple[str, ...] = ("jerry-xl",), **options: Any
) -> Iterator[Pair]:
    """A guarded OptiLLM; its upstream demands the upstream key."""
    upstream = StandIn(models, key=UPSTREAM_KEY)
    with upstream.running(), guarded(release, upstream.base_url, **options) as server:
        yield Pair(server, upstream)


@contextmanager
def trickle(pause: float) -> Iterator[str]:
    """An upstream that sends its headers, then a space every `pause` seconds: its base URL."""
    ended = threading.Event()

    def serve(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n")
            while not ended.wait(pause):
                connection.sendall(b" ")

    def accept(listening: socket.socket) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=listening.accept()[:1], daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=accept, args=(listening,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        finally:
            ended.set()
            listening.shutdown(socket.SHUT_RDWR)


@contextmanager
def bare_pair(
    release: Path,
    models: tuple[str, ...] = ("jerry-xl",),
    key_demanded: str | None = UPSTREAM_KEY,
    arguments: Sequence[str] = (),
    **options: Any,
) -> Iterator[Pair]:
    """The same OptiLLM without the guard."""
    upstream = StandIn(models, key=key_demanded)
    with (
        upstream.running(),
        bare(release, upstream.base_url, arguments=arguments, **options) as server,
    ):
        yield Pair(server, upstream)


def text_of(response: httpx.Response) -> str:
    """The first choice's text of a 200."""
    assert response.status_code == 200, response.text
    return str(response.json()["choices"][0]["message"]["content"])


def error_of(response: httpx.Response) -> dict[str, Any]:
    """The error object of an answer, after checking that it has OpenAI's shape exactly."""
    assert response.headers["content-type"].startswith("application/json"), response.text
    body = response.json()
    assert set(body) == {"error"}, body
    error = body["error"]
    assert set(error) == {"message", "type", "param", "code"}, error
    assert isinstance(error["message"], str)
    assert error["message"]
    assert isinstance(error["type"], str)
    assert isinstance(error["code"], str)
    return dict(error)


def assert_refused(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The answer is this refusal; returns its error object."""
    assert response.status_code == status, response.text
    error = error_of(response)
    assert error["code"] == code, error
    return error


def spent(upstream: StandIn) -> tuple[int, int]:
    """Prompt and completion tokens of every completion that the stand-in sent by itself."""
    usages = [
        completion(seen.body)["usage"]
        for seen in upstream.seen
        if seen.method == "POST" and seen.body
    ]
    return sum(u["prompt_tokens"] for u in usages), sum(u["completion_tokens"] for u in usages)


def events(server: Server) -> list[dict[str, Any]]:
    """The journal's lines, each of which must be a JSON object."""
    lines = [json.loads(line) for line in server.journal().splitlines()]
    assert all(isinstance(line, dict) for line in lines)
    return lines


def wait_until_logged(server: Server, trace: str) -> dict[str, Any]:
    """The log line of the request with this trace."""
    found: list[dict[str, Any]] = []

    def is_there() -> bool:
        found[:] = [line for line in events(server) if line.get("trace") == trace]
        return bool(found)

    wait_until(is_there, 5, "the log line of the request")
    return found[0]


def journal_of(server: Server) -> list[dict[str, Any]]:
    """The lines that stand for a client's request: served or refused."""
    return [line for line in events(server) if line.get("event") in ("request", "refused")]


def assert_silent(server: Server) -> None:
    """The journal is JSON lines without a traceback, a prompt or a key."""
    text = server.journal()
    assert events(server)
    for secret in ("Traceback", MARK, PROXY_KEY, UPSTREAM_KEY):
        assert secret not in text, secret


def port_of(server: Server) -> int:
    return int(server.url.rsplit(":", 1)[1].split("/")[0])


def raw(server: Server, data: bytes, *, finish: bool = False, seconds: float = 10) -> bytes:
    """Bytes in, bytes out, without an HTTP library that would refuse to send them."""
    received = b""
    with socket.create_connection(("127.0.0.1", port_of(server)), timeout=seconds) as connection:
        connection.sendall(data)
        if finish:
            connection.shutdown(socket.SHUT_WR)
        while chunk := connection.recv(65536):
            received += chunk
    return received


def send(server: Server, model: str, text: str = "q", **fields: Any) -> socket.socket:
    """Send a request, and do not read the response."""
    messages = [{"role": "user", "content": text}]
    body = json.dumps({"model": model, "messages": messages, **fields}).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {server.key}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    connection = socket.create_connection(("127.0.0.1", port_of(server)))
    connection.sendall(head.encode() + body)
    return connection


def asks_for(seen: Seen, text: str) -> bool:
    """Whether an upstream call carries this text in its messages."""
    return text in json.dumps((seen.body or {}).get("messages"))
