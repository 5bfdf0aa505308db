"""`python -m benchmarks.restarts [--restarts N] [--minutes M]`: what clients notice of many restarts, as root.

Boots a machine of its own, installs a deployment there and restarts it over and over with
`optictl restart` under the constant load of the tests. Adds a line to RESTARTS.md beside this file
and sums up all of them, so that several runs make up a long one.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from optictl.demo.standin import StandIn
from tests.support import PROXY_KEY, UPSTREAM_KEY, free_port, packaged
from tests.systemd.conftest import Host
from tests.systemd.load import CALL_SECONDS, CLIENTS, HEAD, RATE, Load, row, slow_upstream, table
from tests.systemd.machine import booted

#: Seconds between the end of a restart and the next one.
PAUSE = 0.5
#: A line of the table: the run, its machine, and what the load's own table says.
COLUMNS = ("date", "restarts", "minutes", "machine", "load before", *HEAD[1:])
PREAMBLE = f"""\
# Restarts under load

Written by `python -m benchmarks.restarts`. The load: {RATE} GET /health a second, each on a new connection, and {CLIENTS}
clients that ask for `bon` one request after the other; its four upstream calls take {CALL_SECONDS} s each. Nothing is retried.
"refused": the connection was; "dropped": reset, closed early or incomplete; p99 and worst are those of the GETs, in seconds.
One line a run; "load before" is the machine's load average before it began.
"""


@contextmanager
def _host() -> Iterator[Host]:
    """A booted machine with a deployment that runs."""
    # the program is there before the overlay is mounted: what changes below one later may not be seen in it
    with packaged() as program, booted() as machine, StandIn(key=UPSTREAM_KEY, respond=slow_upstream).running() as upstream:
        host = Host(machine, program, free_port(), upstream)
        host.configure()
        host.optictl("install", "--yes")
        yield host


def _measure(host: Host, restarts: int, minutes: float) -> tuple[int, Load]:
    """Restart until either bound is reached: how many it were, and the load."""
    deadline, done = time.monotonic() + 60 * minutes, 0
    pid = host.machine.show("optillm-proxy.service", "MainPID")
    with Load(host.port, PROXY_KEY).running() as load:
        time.sleep(PAUSE)
        while done < restarts and time.monotonic() < deadline:
            host.optictl("restart")
            before, pid = pid, host.machine.show("optillm-proxy.service", "MainPID")
            if before == pid:
                raise RuntimeError("optictl restart ended well, but the process is the same")
            done += 1
            # the stand-in keeps what it has seen; hours of it are of no use here
            host.upstream.seen.clear()
            print(f"\r{done} restarts", end="", file=sys.stderr, flush=True)
            time.sleep(PAUSE)
    print(file=sys.stderr)
    return done, load


def _runs(text: str) -> list[tuple[str, ...]]:
    """The lines of a table that was written before, without their sum."""
    lines = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in text.splitlines() if line.startswith("| 2")]
    return [line for line in lines if len(line) == len(COLUMNS)]


def _sum(runs: list[tuple[str, ...]]) -> tuple[str, ...]:
    """The last line: counts and minutes are added, of "worst" there is the worst, and nothing can be said of "p99"."""

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
    """Measure, print the table, write it. 0 if nothing was refused, dropped or answered with an error."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.restarts", description="Many restarts under load.")
    parser.add_argument("--restarts", type=int, default=1000, metavar="N", help="how many (default: 1000, some hours)")
    parser.add_argument("--minutes", type=float, default=55, metavar="M", help="begin none after that (default: 55)")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("RESTARTS.md"), metavar="FILE")
    options = parser.parse_args()
    before = os.getloadavg()[0]
    with _host() as host:
        done, load = _measure(host, options.restarts, options.minutes)
        systemd = host.machine.run("systemctl", "--version").stdout.split()[1]
    run = (
        time.strftime("%Y-%m-%d", time.gmtime()), str(done), f"{load.seconds / 60:.1f}",
        f"{os.cpu_count()} cores ({platform.machine()}), systemd {systemd}", f"{before:.1f}", *row("", load)[1:],
    )  # fmt: skip
    runs = [*(_runs(options.output.read_text()) if options.output.exists() else []), run]
    print(table([run], COLUMNS))
    options.output.write_text(f"{PREAMBLE}\n{table([*runs, _sum(runs)], COLUMNS)}\n")
    lost = sum(tally.count("refused", "dropped") + len(tally.others) for tally in (load.gets, load.strategies))
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
