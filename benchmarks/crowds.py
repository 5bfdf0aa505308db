"""Memory and threads of both programs with many requests of a strategy at the same time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass

from benchmarks import slow_clients
from benchmarks.lab import Lab, say
from benchmarks.servers import Server, bare, calls, guarded, memory, slow_upstream, use
from benchmarks.strategies_tables import Crowd

CLIENTS = 64
#: Seconds between two samples.
_PAUSE = 0.2


@dataclass
class _Highest:
    """The highest values. Memory in MiB."""

    rss: float = 0.0
    pss: float | None = None
    threads: int = 0

    def sample(self, pid: int) -> None:
        rss, pss = memory(pid)
        self.rss, self.threads = max(self.rss, rss), max(self.threads, use(pid).threads)
        self.pss = pss if pss is None else max(self.pss or 0.0, pss)


@contextmanager
def _sampled(pid: int) -> Iterator[_Highest]:
    """Sample a program during the block."""
    highest, is_over = _Highest(), threading.Event()

    def run() -> None:
        while not is_over.wait(_PAUSE):
            with suppress(FileNotFoundError, ProcessLookupError):  # a process ended meanwhile
                highest.sample(pid)

    sampler = threading.Thread(target=run)
    sampler.start()
    try:
        yield highest
    finally:
        is_over.set()
        sampler.join()


def _crowd(strategy: str, program: str, server: Server, upstream: int) -> Crowd:
    """CLIENTS requests at the same time."""
    rest = memory(server.pid)[0]

    def ask(_: int) -> bool:
        try:
            return bool(slow_clients.ask(server.port, strategy).text)
        except (OSError, RuntimeError) as error:
            say(f"strategies: {error!r}"[:300])
            return False

    with _sampled(server.pid) as highest, ThreadPoolExecutor(CLIENTS) as clients:
        since = time.perf_counter()
        answered = sum(clients.map(ask, range(CLIENTS)))
        seconds = time.perf_counter() - since
    most = calls(upstream).most
    return Crowd(
        strategy,
        program,
        answered,
        seconds,
        rest,
        highest.rss,
        highest.pss,
        highest.threads,
        most,
    )


def measure(lab: Lab, strategies: Sequence[str]) -> Iterator[Crowd]:
    """Both programs, started for each strategy."""
    for strategy in strategies:
        for program in ("guarded", "bare"):
            say(f"strategies: {CLIENTS} requests of {strategy} at the same time, {program}")
            with slow_upstream("honour", 20) as port:
                url = f"http://127.0.0.1:{port}/v1"
                started: AbstractContextManager[Server] = (
                    guarded(lab.release, url, strategies)
                    if program == "guarded"
                    else bare(lab.release / ".venv", url)
                )
                with started as server:
                    yield _crowd(strategy, program, server, port)
