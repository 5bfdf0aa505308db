"""`python -m benchmarks.load [--quick]`: many parallel clients, for guarded and bare OptiLLM.

It uses 1 to 256 clients, and an upstream with 0, 1 and 20 s per call. LOAD.md and load.svg get
throughput, time added to the upstream's, memory, threads, open files, and the time of /health.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import plot
from benchmarks.clients import Client, Refused
from benchmarks.figures import number
from benchmarks.lab import laboratory, say
from benchmarks.servers import Server, bare, guarded, upstream
from benchmarks.watcher import Seen, watched
from optictl.deployment.config_sections import Limits
from testing.load import percentile

#: A strategy with one upstream call: the upstream's share of a request is its response time.
STRATEGY = "re2"
#: Response time of the upstream in seconds -> numbers of parallel clients.
STAGES: dict[int, tuple[int, ...]] = {
    20: (1, 16, 64, 256),
    1: (1, 4, 16, 64, 128, 256),
    0: (1, 4, 16, 64, 128, 256),
}
QUICK: dict[int, tuple[int, ...]] = {1: (1, 64, 256), 0: (1, 8, 64)}
#: The longest time from the first to the last start of a stage, in seconds.
BUDGET = 13 * 60
#: Seconds during which clients start requests.
SPAN = 4
#: limits.max_in_flight for a run without a queue.
UNLIMITED = 512
DEFAULT = Limits().max_in_flight
GUARDED, TWO, LIMITED, BARE = (
    "guarded",
    "guarded, 2 workers",
    f"guarded, {DEFAULT} at a time",
    "bare",
)
COLUMNS = (
    "upstream s",
    "clients",
    "program",
    "answers",
    "503",
    "failed",
    "answers/s",
    "added p50 ms",
    "added p95 ms",
    "RSS MiB",
    "threads",
    "files",
    "/health p95 ms",
    "worst ms",
)
PREAMBLE = f"""\
# Many clients at once

Written by `python -m benchmarks.load`. The clients, the upstream, the program under test and the
watcher are separate processes on the same cores. Clients request `{STRATEGY}` (one upstream call)
over kept-alive connections, one request after the other, for {SPAN} s. "added": the time of an
answer minus the upstream's time, including the queue. RSS, threads and files are maximum values.
The watcher requests /health ten times a second, each time on a new connection.

- "{GUARDED}": a release as its unit starts it, with `limits.max_in_flight: {UNLIMITED}`: no request
  waits in the queue.
- "{TWO}": the same with `workers: 2`.
- "{LIMITED}": one worker with the default limit, for stages with more clients than half of it. A
  client that gets 503 sends no more requests (`Retry-After` is longer than the stage).
- "{BARE}": OptiLLM by hand, the same closure.
"""


@dataclass(frozen=True)
class Stage:
    """The figures of a stage with `clients` parallel clients. Times are in milliseconds."""

    seconds: float
    clients: int
    program: str
    answered: int
    refused: int
    failed: int
    rate: float
    p50: float
    p95: float
    seen: Seen

    def cells(self) -> tuple[str, ...]:
        """A line of the table."""
        seen = self.seen
        figures = (
            self.rate,
            self.p50,
            self.p95,
            seen.memory,
            seen.threads,
            seen.files,
            seen.health_p95,
            seen.health_worst,
        )
        counts = (self.answered, self.refused, self.failed)
        return (
            f"{self.seconds:g}",
            str(self.clients),
            self.program,
            *map(str, counts),
            *map(number, figures),
        )


def _stage(server: Server, program: str, seconds: float, clients: int) -> Stage:
    taken: list[float] = []
    refused: list[Exception] = []
    failed: list[Exception] = []
    begin = threading.Barrier(clients + 1)

    def client() -> None:
        one = Client(server.port, f"{STRATEGY}-jerry-xl")
        begin.wait()
        until = time.monotonic() + SPAN
        try:
            while True:  # at least one request, whatever the upstream's time
                taken.append(one.ask() * 1000)
                if time.monotonic() >= until:
                    return
        except Refused as error:
            refused.append(error)
        except Exception as error:
            failed.append(error)
        finally:
            one.close()

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    with watched(server.port, server.pid) as seen:
        begin.wait()
        since = time.perf_counter()
        for thread in threads:
            thread.join()
        elapsed = time.perf_counter() - since
    if failed:
        say(f"load: the first of {len(failed)} that failed: {failed[0]!r}")
    added = sorted(one - seconds * 1000 for one in taken) or [0.0]
    return Stage(
        seconds,
        clients,
        program,
        len(taken),
        len(refused),
        len(failed),
        len(taken) / elapsed,
        percentile(added, 0.5),
        percentile(added, 0.95),
        seen,
    )


def _measure(stages: dict[int, tuple[int, ...]], release: Path) -> Iterator[Stage]:
    until = time.monotonic() + BUDGET
    for seconds, numbers in stages.items():
        with ExitStack() as stack:
            url = f"http://127.0.0.1:{stack.enter_context(upstream(seconds))}/v1"
            servers = {
                GUARDED: stack.enter_context(
                    guarded(release, url, (STRATEGY,), max_in_flight=UNLIMITED)
                ),
                TWO: stack.enter_context(
                    guarded(release, url, (STRATEGY,), workers=2, max_in_flight=UNLIMITED)
                ),
                LIMITED: stack.enter_context(guarded(release, url, (STRATEGY,))),
                BARE: stack.enter_context(bare(release / ".venv", url)),
            }
            for clients in numbers:
                for program, server in servers.items():
                    if program == LIMITED and clients <= DEFAULT // 2:
                        continue
                    if time.monotonic() > until:
                        say(
                            f"load: no time left for an upstream of {seconds} s, {clients} "
                            f"clients, {program}"
                        )
                        continue
                    say(f"load: upstream {seconds} s, {clients} clients, {program}")
                    stage = _stage(server, program, seconds, clients)
                    say(
                        "load: "
                        + ", ".join(
                            f"{name} {cell}"
                            for name, cell in zip(COLUMNS[3:], stage.cells()[3:], strict=True)
                        )
                    )
                    yield stage


def _table(stages: list[Stage]) -> str:
    lines = [COLUMNS, ("---",) * len(COLUMNS), *(stage.cells() for stage in stages)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _sizing(stages: list[Stage]) -> str:
    """A comment on the default of limits.max_in_flight, from the figures."""
    fastest, of_two, of_bare = (
        max(s.rate for s in stages if s.program == name) for name in (GUARDED, TWO, BARE)
    )
    # for each upstream the last stage, which has the most clients
    limited = {stage.seconds: stage for stage in stages if stage.program == LIMITED}
    healths = "; ".join(
        f"{one.seconds:g} s: {number(one.seen.health_p95)} ({number(one.seen.health_worst)})"
        for one in limited.values()
    )
    return (
        f"The guarded service gave at most {number(fastest)} answers/s, bare OptiLLM "
        f"{number(of_bare)}.\n"
        f"Two workers gave {number(of_two)}, {of_two / fastest:.2f} times as many. Clients and "
        "upstream use the same two cores.\n"
        f"With the default of {DEFAULT} and an upstream of 1 s, {DEFAULT} requests end per second, "
        f"{DEFAULT / fastest:.0%} of the rate\n"
        "of one worker; slower models need less. /health with the most clients and that limit, "
        "p95 (worst) in ms,\n"
        f"by the upstream's time: {healths}."
    )


def _show(stages: list[Stage]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in COLUMNS:
        table.add_column(column, justify="left" if column == "program" else "right")
    for stage in stages:
        table.add_row(*stage.cells())
    Console(width=None if sys.stdout.isatty() else 170).print(table)


def main() -> int:
    """Measure, print the table, and write it and its plots."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.load", description="Many clients at once."
    )
    parser.add_argument(
        "--quick", action="store_true", help="fewer stages, nothing is written: about three minutes"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path(__file__).parent,
        metavar="DIR",
        help="where the results go",
    )
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    load_before = os.getloadavg()[0]
    with laboratory(full=False) as lab:
        stages = list(_measure(QUICK if options.quick else STAGES, lab.release))
    _show(stages)
    if not options.quick:
        machine = (
            f"{os.cpu_count()} cores ({platform.machine()}), load {load_before:.1f} before it began"
        )
        when = time.strftime("%Y-%m-%d", time.gmtime())
        (options.output / "LOAD.md").write_text(
            f"{PREAMBLE}\n{when}, "
            f"{machine}.\n\n{_sizing(stages)}\n\n![Plots](load.svg)\n\n{_table(stages)}\n"
        )
        (options.output / "load.svg").write_text(plot.draw(_charts(stages)))
    return 0


def _charts(stages: list[Stage]) -> list[plot.Chart]:
    """Draw a row of charts for each upstream, with a column for each figure."""
    figures: dict[str, Callable[[Stage], float]] = {
        "answers/s": lambda s: s.rate,
        "added p50, ms": lambda s: s.p50,
        "RSS, MiB": lambda s: s.seen.memory,
        "threads": lambda s: s.seen.threads,
        "open files": lambda s: s.seen.files,
        "/health worst, ms": lambda s: s.seen.health_worst,
    }
    charts = []
    for seconds in dict.fromkeys(s.seconds for s in stages):
        for name, of in figures.items():
            lines = {
                program: [
                    (s.clients, of(s))
                    for s in stages
                    if s.seconds == seconds and s.program == program
                ]
                for program in (GUARDED, BARE, LIMITED, TWO)
            }
            charts.append(plot.Chart(f"{name}; upstream {seconds:g} s", lines))
    return charts


if __name__ == "__main__":
    sys.exit(main())
