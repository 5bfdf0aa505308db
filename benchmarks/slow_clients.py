"""Requests that take seconds: whole answers, streams, and a client that leaves."""

from __future__ import annotations

import http.client
import itertools
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from benchmarks.servers import PROXY_KEY

#: Seconds of a request.
PATIENCE = 900
_HEADERS = {"Content-Type": "application/json", "Authorization": f"Bearer {PROXY_KEY}"}
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Answer:
    """An answer: seconds until its first token and until its end, and its text."""

    first: float
    seconds: float
    text: str


def question() -> str:
    """A question that was not asked before."""
    return f"What is {next(_numbers)} plus 2?"


def ask(
    port: int, strategy: str, text: str = "", *, stream: bool = False, more: Mapping[str, Any] = {}
) -> Answer:
    """Ask a strategy, and wait for the end. `more`: fields of the body, such as `n`.

    Raises:
        RuntimeError: there is no answer.
    """
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)) as connection:
        since = time.perf_counter()
        _send(connection, strategy, text, {"stream": stream, **more})
        response = connection.getresponse()
        if response.status != 200:
            raise RuntimeError(f"{strategy}: {response.status} {response.read(300)!r}")
        answer = _streamed(response, since) if stream else _whole(response, since)
    if not answer.text.strip():
        raise RuntimeError(f"{strategy}: an empty answer")
    return answer


def leave(
    port: int, strategy: str, text: str = "", *, after: float, more: Mapping[str, Any] = {}
) -> float:
    """Ask, and close the connection after `after` seconds. Returns when, by the monotonic clock."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    _send(connection, strategy, text, more)
    time.sleep(after)
    left = time.monotonic()
    connection.close()
    return left


def _send(
    connection: http.client.HTTPConnection, strategy: str, text: str, more: Mapping[str, Any]
) -> None:
    messages = [{"role": "user", "content": text or question()}]
    body = {"model": f"{strategy}-jerry-xl", "messages": messages, **more}
    connection.request("POST", "/v1/chat/completions", json.dumps(body).encode(), _HEADERS)


def _whole(response: http.client.HTTPResponse, since: float) -> Answer:
    data = json.loads(response.read())
    seconds = time.perf_counter() - since
    return Answer(seconds, seconds, data["choices"][0]["message"]["content"] or "")


def _streamed(response: http.client.HTTPResponse, since: float) -> Answer:
    """A stream, read as it comes.

    Raises:
        RuntimeError: it has an error, or no end.
    """
    first, text = 0.0, ""
    for line in _lines(response):
        if not line.startswith("data:"):
            continue  # a comment, or the end of an event
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            return Answer(first, time.perf_counter() - since, text)
        event = json.loads(data)
        if "error" in event:
            raise RuntimeError(f"the stream has an error: {event['error']}")
        delta = event["choices"][0]["delta"] if event.get("choices") else {}
        if content := delta.get("content"):
            first = first or time.perf_counter() - since
            text += content
    raise RuntimeError("the stream ended without [DONE]")


def _lines(response: http.client.HTTPResponse) -> Iterator[str]:
    """The lines of an answer, each as soon as it is there."""
    received = b""
    while data := response.read1(65536):
        received += data
        *lines, received = received.split(b"\n")
        yield from (line.decode() for line in lines)
