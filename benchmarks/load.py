"""`python -m benchmarks.load [--quick]`: many clients at once, guarded and bare OptiLLM side by side.

Drives both with 1 to 256 clients and an upstream that takes 0, 1 and 20 s a call, and writes LOAD.md and load.svg
beside this file: throughput, what is added to the upstream's time, memory, threads, open files, and how long /health takes.
"""

from __future__ import annotations

import argparse
import http.client
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import plot
from benchmarks.clients import Client, percentile
from benchmarks.figures import number
from benchmarks.lab import laboratory, say
from benchmarks.servers import Server, Use, bare, guarded, upstream, use

#: A strategy of one upstream call, so that the upstream's share of a request is its own time.
STRATEGY = "re2"
#: Seconds that the upstream takes -> how many clients ask at once.
STAGES: dict[int, tuple[int, ...]] = {
    0: (1, 2, 4, 8, 16, 32, 64, 128, 256),
    1: (1, 2, 4, 8, 16, 32, 64, 128, 256),
    20: (1, 16, 64, 256),
}
QUICK: dict[int, tuple[int, ...]] = {0: (1, 8, 64), 1: (1, 64, 256)}
#: Seconds in which clients begin requests.
SPAN = 4
#: So many run at a time in the guarded service: it is what this measures that says how many should.
UNLIMITED = 512
COLUMNS = (
    "upstream s", "clients", "program", "answers", "failed", "answers/s", "added p50 ms", "added p95 ms", "RSS MiB", "threads",
    "files", "/health worst ms",
)  # fmt: skip
PREAMBLE = f"""\
# Many clients at once

Written by `python -m benchmarks.load`. One process each for the clients, the upstream and the program under test; all of them
share the cores. Clients ask for `{STRATEGY}` (one upstream call) over kept-alive connections, as fast as they are answered, for
{SPAN} s; "added" is the time of an answer less the upstream's. RSS, threads and files are the most that was seen; /health is
asked five times a second on a connection of its own. Guarded: a release as its unit starts it, with
`limits.max_in_flight: {UNLIMITED}`, so that it holds nobody back; bare: OptiLLM by hand, the same closure.
"""


@dataclass(frozen=True)
class Stage:
    """What was seen with so many clients; times in milliseconds."""

    seconds: float
    clients: int
    program: str
    answered: int
    failed: int
    rate: float
    p50: float
    p95: float
    most: Use
    health: float

    def cells(self) -> tuple[str, ...]:
        """A line of the table."""
        figures = (self.rate, self.p50, self.p95, self.most.memory, self.most.threads, self.most.files, self.health)
        counts = (f"{self.seconds:g}", str(self.clients), self.program, str(self.answered), str(self.failed))
        return (*counts, *map(number, figures))


@contextmanager
def _repeated(once: Callable[[], None], pause: float) -> Iterator[None]:
    """Do it every `pause` seconds in a thread, until the block ends."""
    ended = threading.Event()

    def loop() -> None:
        while not ended.wait(pause):
            once()

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _health(port: int) -> float:
    """Milliseconds until /health was answered."""
    since = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/health")
    connection.getresponse().read()
    connection.close()
    return (time.perf_counter() - since) * 1000


def _stage(server: Server, program: str, seconds: float, clients: int) -> Stage:
    taken: list[float] = []
    failed: list[Exception] = []
    healths, uses = [_health(server.port)], [use(server.pid)]
    begin = threading.Barrier(clients + 1)

    def client() -> None:
        one = Client(server.port, f"{STRATEGY}-jerry-xl")
        begin.wait()
        until = time.monotonic() + SPAN
        try:
            while True:  # one request at least, however long the upstream takes
                taken.append(one.ask() * 1000)
                if time.monotonic() >= until:
                    return
        except Exception as error:
            failed.append(error)
        finally:
            one.close()

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    with (
        _repeated(lambda: healths.append(_health(server.port)), 0.2),
        _repeated(lambda: uses.append(use(server.pid)), 0.5),
    ):
        begin.wait()
        since = time.perf_counter()
        for thread in threads:
            thread.join()
        elapsed = time.perf_counter() - since
    most = Use(max(u.memory for u in uses), max(u.threads for u in uses), max(u.files for u in uses))
    added = sorted(one - seconds * 1000 for one in taken) or [0.0]
    p50, p95 = percentile(added, 0.5), percentile(added, 0.95)
    return Stage(seconds, clients, program, len(taken), len(failed), len(taken) / elapsed, p50, p95, most, max(healths))


def _measure(stages: dict[int, tuple[int, ...]], release: Path) -> Iterator[Stage]:
    for seconds, numbers in stages.items():
        with upstream(seconds) as port:
            url = f"http://127.0.0.1:{port}/v1"
            with guarded(release, url, (STRATEGY,), max_in_flight=UNLIMITED) as ours, bare(release / ".venv", url) as other:
                for clients in numbers:
                    for server, program in ((ours, "guarded"), (other, "bare")):
                        say(f"load: upstream {seconds} s, {clients} clients, {program}")
                        yield _stage(server, program, seconds, clients)


def _table(stages: list[Stage]) -> str:
    lines = [COLUMNS, ("---",) * len(COLUMNS), *(stage.cells() for stage in stages)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> int:
    """Measure, print the table, write it and its plots."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description="Many clients at once.")
    parser.add_argument("--quick", action="store_true", help="fewer stages, nothing is written: about two minutes")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, metavar="DIR", help="where the results go")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    load_before = os.getloadavg()[0]
    with laboratory(full=False) as lab:
        stages = list(_measure(QUICK if options.quick else STAGES, lab.release))
    table = _table(stages)
    print(table)
    if not options.quick:
        machine = f"{os.cpu_count()} cores ({platform.machine()}), load {load_before:.1f} before it began"
        when = time.strftime("%Y-%m-%d", time.gmtime())
        (options.output / "LOAD.md").write_text(f"{PREAMBLE}\n{when}, {machine}.\n\n![Plots](load.svg)\n\n{table}\n")
        (options.output / "load.svg").write_text(plot.draw(_charts(stages)))
    return 0


def _charts(stages: list[Stage]) -> list[plot.Chart]:
    """A row of charts for each upstream, a column for each figure."""
    figures: dict[str, Callable[[Stage], float]] = {
        "answers/s": lambda s: s.rate,
        "added p50, ms": lambda s: s.p50,
        "RSS, MiB": lambda s: s.most.memory,
        "threads": lambda s: s.most.threads,
        "open files": lambda s: s.most.files,
        "/health worst, ms": lambda s: s.health,
    }
    charts = []
    for seconds in dict.fromkeys(s.seconds for s in stages):
        for name, of in figures.items():
            lines = {
                program: [(s.clients, of(s)) for s in stages if s.seconds == seconds and s.program == program]
                for program in ("guarded", "bare")
            }
            charts.append(plot.Chart(f"{name}; upstream {seconds:g} s", lines))
    return charts


if __name__ == "__main__":
    sys.exit(main())
