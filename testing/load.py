"""A constant, bounded load on one deployment that notes what became of every single request.

Short requests come at a fixed pace whether the earlier ones were answered or not, each on a
separate connection; a few clients ask for strategies one after the other. Nothing is retried.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

from optictl.proof.standin import Reply, Seen, completion

#: Short requests a second, and clients that loop strategies.
RATE, CLIENTS = 50, 4
#: Seconds of one upstream call: `bon` makes four of them, one after the other.
CALL_SECONDS = 0.25
#: No request is waited for longer, and no load lasts longer; seconds.
PATIENCE, LONGEST = 60.0, 3600.0
#: Seconds that a client rests after a request that failed.
_PAUSE = 0.2
#: Short requests that may wait at the same time.
_WAITING = 600


def percentile(ordered: Sequence[float], share: float) -> float:
    """The percentile by nearest rank."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


@dataclass(frozen=True)
class Request:
    """One request: its begin (time.monotonic), its seconds, and how it ended.

    "ok", "refused", "dropped" or its status.
    """

    begun: float
    seconds: float
    result: str


@dataclass
class Tally:
    """All requests of one kind."""

    requests: list[Request] = field(default_factory=list)

    def count(self, *results: str) -> int:
        return sum(r.result in results for r in self.requests)

    def all(self, result: str) -> list[Request]:
        return [r for r in self.requests if r.result == result]

    @property
    def others(self) -> list[str]:
        """Answers that were whole, but not 200."""
        return sorted(
            r.result for r in self.requests if r.result not in ("ok", "refused", "dropped")
        )

    def _ordered(self) -> list[float]:
        return sorted(r.seconds for r in self.requests if r.result == "ok") or [0.0]

    @property
    def worst(self) -> float:
        return self._ordered()[-1]

    @property
    def p99(self) -> float:
        return percentile(self._ordered(), 0.99)


def slow_upstream(seen: Seen) -> Reply | None:
    """For StandIn.respond: every completion takes CALL_SECONDS."""
    return (
        Reply(body=completion(seen.body or {}), delay=CALL_SECONDS)
        if seen.method == "POST"
        else None
    )


def ask(port: int, method: str, path: str, body: bytes | None = None, key: str = "") -> Request:
    """One request on a separate connection."""
    headers = {
        "Connection": "close",
        "Content-Type": "application/json",
        "Authorization": f"Bearer {key}",
    }
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    begun = time.monotonic()
    try:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        response.read()
        result = "ok" if response.status == 200 else str(response.status)
    except ConnectionRefusedError:
        result = "refused"
    except (
        OSError,
        http.client.HTTPException,
    ):  # reset, closed early, incomplete, or no answer within PATIENCE
        result = "dropped"
    finally:
        connection.close()
    return Request(begun, time.monotonic() - begun, result)


class Load:
    """The load on the service at `port`; its counts are whole once `running` has ended."""

    def __init__(
        self,
        port: int,
        key: str,
        model: str = "bon-jerry-xl",
        *,
        rate: int = RATE,
        clients: int = CLIENTS,
    ) -> None:
        self.port, self.key, self._rate, self._clients = port, key, rate, clients
        self._body = json.dumps(
            {"model": model, "messages": [{"role": "user", "content": "hello"}]}
        ).encode()
        self.gets, self.strategies = Tally(), Tally()
        self.seconds = 0.0
        self._over = threading.Event()

    @contextmanager
    def running(self) -> Iterator[Load]:
        """Load until the block ends; what is still waiting then is waited for."""
        since = time.monotonic()
        threads = [threading.Thread(target=self._short, daemon=True)]
        threads += [threading.Thread(target=self._loop, daemon=True) for _ in range(self._clients)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._over.set()
            for thread in threads:
                thread.join(PATIENCE + 10)
            self.seconds = time.monotonic() - since

    def _short(self) -> None:
        start = time.monotonic()
        with ThreadPoolExecutor(_WAITING) as pool:
            for number in range(int(LONGEST * self._rate)):
                # a pace, not a pause: a late request does not move the ones after it
                if self._over.wait(max(0.0, start + number / self._rate - time.monotonic())):
                    return
                pool.submit(lambda: self.gets.requests.append(ask(self.port, "GET", "/health")))

    def _loop(self) -> None:
        deadline = time.monotonic() + LONGEST
        while not self._over.is_set() and time.monotonic() < deadline:
            request = ask(self.port, "POST", "/v1/chat/completions", self._body, self.key)
            self.strategies.requests.append(request)
            if request.result != "ok":
                self._over.wait(_PAUSE)


HEAD = (
    "what",
    "GET ok",
    "refused",
    "dropped",
    "not 200",
    "p99 s",
    "worst s",
    "strategies ok",
    "refused",
    "dropped",
    "not 200",
)


def row(what: str, load: Load) -> tuple[str, ...]:
    """One line of the table."""
    cells = [what]
    for tally in (load.gets, load.strategies):
        cells += [
            str(tally.count("ok")),
            str(tally.count("refused")),
            str(tally.count("dropped")),
            str(len(tally.others)),
        ]
        if tally is load.gets:
            cells += [f"{tally.p99:.3f}", f"{tally.worst:.3f}"]
    return tuple(cells)


def table(rows: Sequence[tuple[str, ...]], head: tuple[str, ...] = HEAD) -> str:
    """Markdown, with columns wide enough to be read as it is."""
    lines = [head, tuple("-" * len(name) for name in head), *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in lines
    )
