"""/health of several services, asked in turn from a separate process: `python -m testing.probe`.

In the process of the test it would wait for that process's interpreter lock, and see itself. It
asks until its standard input ends, and then prints the seconds of each answer.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from testing.load import percentile
from testing.separate import separate

#: Seconds between two questions, and the longest wait for an answer.
_PAUSE, _PATIENCE = 0.01, 20.0
_QUESTION = b"GET /health HTTP/1.1\r\nHost: probe\r\nConnection: close\r\n\r\n"


@dataclass
class Probe:
    """The answers by port: seconds. No answer in time counts as the longest wait."""

    seconds: dict[int, list[float]] = field(default_factory=dict)

    def p99(self, port: int) -> float:
        """The 99th percentile by nearest rank."""
        return percentile(sorted(self.seconds[port]), 0.99)


@contextmanager
def probing(ports: Sequence[int]) -> Iterator[Probe]:
    """Ask during the block. The result is filled in at its end."""
    probe = Probe()
    with separate("testing.probe", *ports, patience=3 * _PATIENCE) as end:
        yield probe
        probe.seconds = {int(port): taken for port, taken in json.loads(end()).items()}


def _ask(port: int) -> float:
    since = time.perf_counter()
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE) as connection:
            connection.sendall(_QUESTION)
            if b" 200 " not in connection.recv(1024):
                return _PATIENCE
    except OSError:
        return _PATIENCE
    return time.perf_counter() - since


def _main(ports: list[int]) -> None:
    print(flush=True)
    taken: dict[int, list[float]] = {port: [] for port in ports}
    while not select.select([sys.stdin], [], [], _PAUSE)[0]:
        for port in ports:
            taken[port].append(_ask(port))
    print(json.dumps(taken))


if __name__ == "__main__":
    _main([int(port) for port in sys.argv[1:]])
