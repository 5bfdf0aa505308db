"""`python -m benchmarks.restarts [--restarts N] [--minutes M]`: effect of restarts on clients.

It needs root. It boots a machine, installs a deployment there, and repeats `optictl restart` under
the constant load of the tests. It adds a line to RESTARTS.md and updates the total of all runs.
Ctrl-C and SIGTERM end a run after the current restart. Interrupted and failed runs are recorded.
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
from contextlib import contextmanager
from pathlib import Path

from testing.host import Host, installed
from testing.load import CALL_SECONDS, CLIENTS, HEAD, RATE, Load, row, slow_upstream, table
from testing.machine import booted
from testing.support import PROXY_KEY, packaged

#: Seconds between the end of a restart and the next one.
PAUSE = 0.5
#: A line of the table: the run, its machine, and the columns of the load's table.
COLUMNS = ("date", "restarts", "minutes", "machine", "load before", *HEAD[1:])
PREAMBLE = f"""\
# Restarts under load

Written by `python -m benchmarks.restarts`. The load: {RATE} GET /health a second, each on a new
connection, and {CLIENTS} clients that request `bon`, one request after the other. Its four upstream
calls take {CALL_SECONDS} s each. There are no retries. "refused": the connection was refused.
"dropped": reset, closed early or incomplete. p99 and worst: of the GETs, in seconds. One line per
run. "load before": the machine's load average before the run.
"""


@contextmanager
def _told() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set during the block."""
    told = threading.Event()
    before = {
        one: signal.signal(one, lambda *_: told.set()) for one in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield told
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _repeat(
    once: Callable[[], None], times: int, minutes: float, told: threading.Event
) -> tuple[int, str]:
    """Repeat until the count or the time is reached, or until a signal.

    Returns:
        The number of restarts, and the failure that ended the run, or "".
    """
    deadline, done = time.monotonic() + 60 * minutes, 0
    while done < times and time.monotonic() < deadline and not told.wait(PAUSE):
        try:
            once()
        except Exception as error:
            return done, f"restart {done + 1}: {error}"
        done += 1
        print(f"\r{done} of {times}", end="", file=sys.stderr, flush=True)
    return done, ""


def _restart(host: Host) -> None:
    """Restart once, and verify it."""
    before = host.machine.show("optillm-proxy.service", "MainPID")
    host.optictl("restart")
    if before == host.machine.show("optillm-proxy.service", "MainPID"):
        raise RuntimeError("optictl restart ended well, but the process is the same")
    # the stand-in records requests; they are not needed, and would fill the memory in hours
    host.upstream.seen.clear()


def _measure(host: Host, restarts: int, minutes: float) -> tuple[int, str, Load]:
    """Restart under load. Returns the result of `_repeat` and the load."""
    with _told() as told:
        with Load(host.port, PROXY_KEY).running() as load:
            done, failure = _repeat(lambda: _restart(host), restarts, minutes, told)
            time.sleep(PAUSE)
        print(file=sys.stderr)
        return done, failure, load


def _runs(text: str) -> list[tuple[str, ...]]:
    """The lines of an existing table, without its total."""
    lines = [
        tuple(cell.strip() for cell in line.strip("|").split("|"))
        for line in text.splitlines()
        if line.startswith("| 2")
    ]
    return [line for line in lines if len(line) == len(COLUMNS)]


def _sum(runs: list[tuple[str, ...]]) -> tuple[str, ...]:
    """The total: the sums of counts and minutes, and the maximum of "worst". "p99" has no total."""

    def of(name: str, cells: tuple[str, ...]) -> str:
        match name:
            case "worst s":
                return max(cells, key=float)
            case "minutes":
                return f"{sum(map(float, cells)):.1f}"
            case "p99 s" | "machine" | "load before":
                return ""
        return str(sum(map(int, cells)))

    columns = list(zip(*runs, strict=True))
    return ("all", *(of(name, cells) for name, cells in zip(COLUMNS[1:], columns[1:], strict=True)))


def main() -> int:
    """Measure, print the table, and write it.

    Returns 0 when no restart failed, and no request was refused, dropped or failed.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.restarts", description="Many restarts under load."
    )
    parser.add_argument(
        "--restarts",
        type=int,
        default=1000,
        metavar="N",
        help="how many (default: 1000, some hours)",
    )
    parser.add_argument(
        "--minutes", type=float, default=55, metavar="M", help="begin none after that (default: 55)"
    )
    parser.add_argument(
        "--output", type=Path, default=Path(__file__).with_name("RESTARTS.md"), metavar="FILE"
    )
    options = parser.parse_args()
    # before the measurement, SIGTERM ends the run as Ctrl-C does: the machine is stopped
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    before = os.getloadavg()[0]
    # the program must exist before the overlay is mounted: an overlay may not show later changes
    # below
    with (
        packaged() as program,
        booted() as machine,
        installed(machine, program, slow_upstream) as host,
    ):
        done, failure, load = _measure(host, options.restarts, options.minutes)
        systemd = host.machine.run("systemctl", "--version").stdout.split()[1]
    run = (
        time.strftime("%Y-%m-%d", time.gmtime()),
        str(done),
        f"{load.seconds / 60:.1f}",
        f"{os.cpu_count()} cores ({platform.machine()}), systemd {systemd}",
        f"{before:.1f}",
        *row("", load)[1:],
    )
    runs = [*(_runs(options.output.read_text()) if options.output.exists() else []), run]
    print(table([run], COLUMNS))
    options.output.write_text(f"{PREAMBLE}\n{table([*runs, _sum(runs)], COLUMNS)}\n")
    if failure:
        print(failure, file=sys.stderr)
    lost = sum(
        tally.count("refused", "dropped") + len(tally.others)
        for tally in (load.gets, load.strategies)
    )
    return 1 if lost or failure else 0


if __name__ == "__main__":
    sys.exit(main())
