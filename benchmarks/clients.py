"""A bounded load on one server: sequential, or a few clients at once, over kept-alive connections.

`http.client`, because what the measuring client spends is subtracted from nobody.
"""

from __future__ import annotations

import http.client
import itertools
import json
import threading
import time

from benchmarks.servers import PROXY_KEY

#: No stage of load lasts longer, whatever its count.
SECONDS = 60
_HEADERS = {"Content-Type": "application/json", "Authorization": f"Bearer {PROXY_KEY}"}
_numbers = itertools.count(1)


class Refused(RuntimeError):
    """503: the server does not take more now."""


class Client:
    """One kept-alive connection."""

    def __init__(self, port: int, model: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._model = model

    def ask(self) -> float:
        """One request, each with a question of its own; seconds until the answer was read."""
        message = {"role": "user", "content": f"What is {next(_numbers)} + 2?"}
        body = json.dumps({"model": self._model, "messages": [message]}).encode()
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
    """Milliseconds of up to `count` requests, one after the other, sorted."""
    client, deadline = Client(port, model), time.monotonic() + SECONDS
    taken: list[float] = []
    while len(taken) < count and time.monotonic() < deadline:
        taken.append(client.ask() * 1000)
    client.close()
    return sorted(taken)


def percentile(ordered: list[float], share: float) -> float:
    """The nearest rank."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def concurrent(port: int, model: str, count: int, clients: int) -> tuple[int, float]:
    """Up to `count` requests from `clients` threads: how many were answered, and in how many seconds."""
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
