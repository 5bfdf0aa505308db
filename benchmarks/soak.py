"""`python -m benchmarks.soak [--minutes N]`: does the memory of the guarded service grow?

Parallel clients request several strategies, a third of the requests as streams, until the time or
the number of requests is over. SOAK.md gets the slope of the resident memory, and a sample a row.
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import linear_regression

from benchmarks.clients import Client
from benchmarks.figures import number
from benchmarks.lab import laboratory, say
from benchmarks.servers import Server, guarded, upstream, use

STRATEGIES = ("re2", "moa", "bon", "self_consistency", "plansearch")
CLIENTS, MOST, MINUTES = 8, 200_000, 10.0
#: Requests until the memory counts: the traces are full, and every thread has worked.
WARM_UP = 5_000
#: Seconds between two samples, and the rows of the table.
PAUSE, ROWS = 2.0, 20
#: The slope that is allowed. MB per 100,000 requests.
LIMIT = 3.0
PREAMBLE = f"""\
# Soak

Written by `python -m benchmarks.soak`. {CLIENTS} clients request {", ".join(STRATEGIES)} in turn
from a release as its unit starts it, every third request as a stream. The upstream answers at once.
Memory is the resident memory of the whole service. The slope is a least squares fit after
{WARM_UP:,} requests.
"""


@dataclass(frozen=True)
class Sample:
    """The service after this number of requests. Memory in MB."""

    requests: int
    memory: float
    threads: int
    files: int


@dataclass
class Soak:
    """The requests of the clients, until `until` (monotonic clock)."""

    server: Server
    until: float
    most: int
    done: int = 0
    failures: list[str] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)

    def run(self) -> None:
        """Send the requests, and sample the service beside them."""
        numbers = itertools.count()
        threads = [threading.Thread(target=self._client, args=(numbers,)) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            now = use(self.server.pid)
            memory = now.memory * 2**20 / 1e6
            self.samples.append(Sample(self.done, memory, now.threads, now.files))
            time.sleep(PAUSE)

    def _client(self, numbers: itertools.count[int]) -> None:
        client = Client(self.server.port, "")
        while time.monotonic() < self.until and (current := next(numbers)) < self.most:
            model = f"{STRATEGIES[current % len(STRATEGIES)]}-jerry-xl"
            try:
                client.ask(model, stream=current % 3 == 0)
            except Exception as error:
                self.failures.append(repr(error)[:300])
                client.close()
                client = Client(self.server.port, "")
            self.done += 1
        client.close()


def slope(samples: Sequence[Sample]) -> float | None:
    """The growth of the memory after the warm-up, in MB per 100,000 requests.

    None without enough samples.
    """
    counted = [sample for sample in samples if sample.requests >= WARM_UP]
    if len({sample.requests for sample in counted}) < 3:
        return None
    fit = linear_regression([s.requests for s in counted], [s.memory for s in counted])
    return fit.slope * 100_000


def report(soak: Soak, seconds: float) -> str:
    """The result as Markdown."""
    growth = slope(soak.samples)
    growth_text = "not measured" if growth is None else f"{number(growth)} MB per 100,000 requests"
    met = "" if growth is None else f" (expected: below {LIMIT:g}; {met_text(growth)})"
    warm = [sample for sample in soak.samples if sample.requests >= WARM_UP] or soak.samples
    files = sorted(sample.files for sample in warm)
    step = max(1, len(soak.samples) // ROWS)
    rows = [
        f"| {s.requests:,} | {s.memory:.1f} | {s.threads} | {s.files} |"
        for s in soak.samples[::step]
    ]
    when = time.strftime("%Y-%m-%d", time.gmtime())
    return "\n".join(
        [
            PREAMBLE,
            f"{when}, {os.cpu_count()} cores ({platform.machine()}).\n",
            f"- requests: {soak.done:,} in {seconds / 60:.1f} minutes, {len(soak.failures)} failed",
            f"- memory: {growth_text}{met}",
            f"- open files after the warm-up: {files[0]} to {files[-1]}\n",
            "| requests | memory, MB | threads | files |",
            "| --- | --- | --- | --- |",
            *rows,
            "",
        ]
    )


def met_text(growth: float) -> str:
    """Whether the slope is allowed."""
    return "met" if growth < LIMIT else "**not met**"


def main() -> int:
    """Run the soak, print its report, and write it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description="A soak test.")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="the longest time")
    parser.add_argument("--requests", type=int, default=MOST, help="the most requests")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path(__file__).parent,
        metavar="DIR",
        help="where the results go",
    )
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with (
        laboratory(full=False) as lab,
        upstream() as port,
        guarded(lab.release, f"http://127.0.0.1:{port}/v1", STRATEGIES) as server,
    ):
        say(f"soak: at most {options.minutes:g} minutes and {options.requests:,} requests")
        since = time.monotonic()
        soak = Soak(server, since + options.minutes * 60, options.requests)
        soak.run()
        text = report(soak, time.monotonic() - since)
    print(text)
    for failure in soak.failures[:5]:
        say(f"soak: failed: {failure}")
    (options.output / "SOAK.md").write_text(text)
    return 1 if soak.failures else 0


if __name__ == "__main__":
    sys.exit(main())
