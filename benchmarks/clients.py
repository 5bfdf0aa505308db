"""A limited load on a server: sequential or parallel requests over kept-alive connections.

It uses `http.client`, because the time of the measuring client is part of every figure.
"""

from __future__ import annotations

import http.client
import itertools
import json
import threading
import time

from benchmarks.servers import PROXY_KEY

#: The longest time of a stage of load, whatever its count.
SECONDS = 60
_HEADERS = {"Content-Type": "application/json", "Authorization": f"Bearer {PROXY_KEY}"}
_numbers = itertools.count(1)


class Refused(RuntimeError):
    """503: the server accepts no more requests now."""


class Client:
    """A kept-alive connection."""

    def __init__(self, port: int, model: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._model = model

    def ask(self, model: str = "", *, stream: bool = False) -> float:
        """Send a request with a unique question. Returns the seconds until the answer is read."""
        message = {"role": "user", "content": f"What is {next(_numbers)} + 2?"}
        fields = {"model": model or self._model, "messages": [message], "stream": stream}
        body = json.dumps(fields).encode()
        since = time.perf_counter()
        self._connection.request("POST", "/v1/chat/completions", body, _HEADERS)
        response = self._connection.getresponse()
        answer = response.read()
        elapsed = time.perf_counter() - since
        if response.status == 503:
            raise Refused(answer[:300])
        if response.status != 200 or b"stand-in" not in answer:
            raise RuntimeError(f"status {response.status}: {answer[:300]!r}")
        return elapsed

    def close(self) -> None:
        self._connection.close()


def sequential(port: int, model: str, count: int) -> list[float]:
    """The times of up to `count` sequential requests in milliseconds, sorted."""
    client, deadline = Client(port, model), time.monotonic() + SECONDS
    taken: list[float] = []
    while len(taken) < count and time.monotonic() < deadline:
        taken.append(client.ask() * 1000)
    client.close()
    return sorted(taken)


def concurrent(port: int, model: str, count: int, clients: int) -> tuple[int, float]:
    """Send up to `count` requests from `clients` threads: (number of answers, seconds)."""
    tickets, deadline = iter(range(count)), time.monotonic() + SECONDS
    lock = threading.Lock()
    answered: list[float] = []
    failed: list[Exception] = []

    def work() -> None:
        client = Client(port, model)
        try:
            while time.monotonic() < deadline:
                with lock:
                    if failed or next(tickets, None) is None:
                        return
                answered.append(client.ask())
        except Exception as error:
            failed.append(error)
        finally:
            client.close()

    threads = [threading.Thread(target=work) for _ in range(clients)]
    since = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed = time.perf_counter() - since
    if failed:
        raise failed[0]
    return len(answered), elapsed
