"""`python -m benchmarks.restarts [--restarts N] [--minutes M]`: what clients notice of many restarts, as root.

Boots a machine of its own, installs a deployment there and restarts it over and over with
`optictl restart` under the constant load of the tests. Writes RESTARTS.md beside this file.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from uv import find_uv_bin

from optictl.demo.standin import StandIn
from tests.support import PROXY_KEY, UPSTREAM_KEY, free_port, open_directory
from tests.systemd.conftest import CHECKOUT, Host
from tests.systemd.load import CALL_SECONDS, CLIENTS, RATE, Load, row, slow_upstream, table
from tests.systemd.machine import booted

#: Seconds between the end of a restart and the next one.
PAUSE = 1.0
PREAMBLE = f"""\
# Restarts under load

Written by `python -m benchmarks.restarts`. The load: {RATE} GET /health a second, each on a new connection, and {CLIENTS}
clients that ask for `bon` one request after the other; its four upstream calls take {CALL_SECONDS} s each. Nothing is retried.
"refused": the connection was; "dropped": reset, closed early or incomplete; p99 and worst are those of the GETs, in seconds.
"""


@contextmanager
def _host() -> Iterator[Host]:
    """A booted machine with a deployment that runs."""
    uv = find_uv_bin()
    with open_directory() as directory:
        subprocess.run([uv, "build", "-q", "--wheel", "--out-dir", str(directory / "dist"), str(CHECKOUT)], check=True)
        subprocess.run([uv, "venv", "-q", "--python", "/usr/bin/python3", str(directory / "venv")], check=True)
        wheel = next((directory / "dist").glob("*.whl"))
        command = [uv, "pip", "install", "-q", "--link-mode=copy", "--python", str(directory / "venv/bin/python"), str(wheel)]
        subprocess.run(command, check=True)
        with booted() as machine, StandIn(key=UPSTREAM_KEY, respond=slow_upstream).running() as upstream:
            host = Host(machine, directory / "venv/bin/optictl", free_port(), upstream)
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
    facts = (
        f"{time.strftime('%Y-%m-%d', time.gmtime())}; {done} restarts in {load.seconds / 60:.1f} min "
        f"({options.restarts} asked for, {options.minutes:g} min allowed); "
        f"{os.cpu_count()} cores ({platform.machine()}), systemd {systemd}; load average before: {before:.1f}."
    )
    text = "\n\n".join([PREAMBLE.rstrip(), facts, table([row(f"{done} optictl restart", load)])]) + "\n"
    print(text)
    options.output.write_text(text)
    lost = sum(tally.count("refused", "dropped") + len(tally.others) for tally in (load.gets, load.strategies))
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
