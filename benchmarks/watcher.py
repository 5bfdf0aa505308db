"""Watch a server under load, in a separate process: `python -m benchmarks.watcher PORT PID`.

In the clients' process it would wait for their interpreter lock and see itself. It looks until its
standard input ends and then prints one line of JSON.
"""

from __future__ import annotations

import http.client
import json
import os
import select
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass

from benchmarks.servers import use
from testing.load import percentile
from testing.separate import separate

#: Seconds between two measurements.
PAUSE = 0.1
#: The time limit of /health in seconds. A request without an answer counts with this time.
GIVE_UP = 30


@dataclass
class Seen:
    """The maximum values (memory: RSS in MiB), and the times of /health in milliseconds."""

    memory: float = 0
    threads: float = 0
    files: float = 0
    health_p95: float = 0
    health_worst: float = 0


def _health(port: int) -> float:
    since = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=GIVE_UP)
    try:
        connection.request("GET", "/health")
        connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        return GIVE_UP * 1000.0
    finally:
        connection.close()
    return (time.perf_counter() - since) * 1000


def _look(port: int, pid: int) -> Seen:
    seen, taken = Seen(), list[float]()
    ended = False
    while not ended:
        taken.append(_health(port))
        if len(taken) % 5 == 1:
            with suppress(
                FileNotFoundError, ProcessLookupError
            ):  # a process has ended meanwhile: measure again
                now = use(pid)
                seen.memory, seen.threads, seen.files = (
                    max(seen.memory, now.memory),
                    max(seen.threads, now.threads),
                    max(seen.files, now.files),
                )
        ended = bool(select.select([sys.stdin], [], [], PAUSE)[0])
    seen.health_p95, seen.health_worst = percentile(sorted(taken), 0.95), max(taken)
    return seen


@contextmanager
def watched(port: int, pid: int) -> Iterator[Seen]:
    """Watch during the block. The result is filled in at its end."""
    seen = Seen()
    with separate("benchmarks.watcher", port, pid, patience=2 * GIVE_UP) as end:
        yield seen
        vars(seen).update(json.loads(end()))


if __name__ == "__main__":
    os.write(1, b"\n")
    print(json.dumps(asdict(_look(int(sys.argv[1]), int(sys.argv[2])))))
