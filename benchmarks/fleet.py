"""`python -m benchmarks.fleet [--hosts 3,10,30] [--output FILE]`: one deployment on many hosts, against a loop of one's own.

A host is a deployment below a directory of its own, reached over Ansible's local connection, so all hosts share the
controller's cores. Between Ansible and a host's Python stands a script that notes the CPU time of each module; what is left
of a roll-out's CPU time is the controller's. Writes FLEET.md beside this file, anew after each run.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from uv import find_uv_bin

from benchmarks.figures import number, ratio_text
from benchmarks.lab import say
from benchmarks.servers import memory
from optictl.deployment import render
from optictl.deployment.config import Config
from optictl.fleet import wheelhouse
from optictl.fleet.targets import target
from optictl.host import files, uv
from optictl.proof.standin import StandIn
from testing.support import PROXY_KEY, UPSTREAM_KEY, open_directory

SIZES = (3, 10, 30)
#: One canary, then so many at a time; Ansible works on a whole batch at once.
BATCH, FORKS = 8, 10
#: From so many hosts on, the release lies on each before the clock starts, linked from a host of an earlier run.
BUILT_BEFORE = 10
#: The loop is timed over so many hosts; one after the other, they know nothing of each other.
LOOPED = 3
#: Seconds between two looks at the controller's memory.
PAUSE = 0.5
PYTHON = "/usr/bin/python3"
PROGRAM = Path(sys.executable).with_name("optictl")
MANY, MANY_FORKS = 1000, (10, 25, 50, 100)
FIRST, LINKED, AGAIN = "first", "first, release there", "no changes"
_ACCOUNT = """\
#!{python} -IS
import os, sys

process = os.posix_spawn("{python}", ["{python}", *sys.argv[1:]], os.environ)
code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
with open("{records}", "a") as file:
    file.write(f"{{sum(os.times()[:4])}}\\n")
sys.exit(code)
"""
#: What somebody writes who has the wheels and a list of hosts; `cp` stands for scp.
_LOOP = """\
set -e
for host in "$@"; do
  mkdir -p "$host/opt/wheels" "$host/etc/optillm-proxy"
  cp -u "$WHEELS"/* "$host/opt/wheels"
  if ! [ -x "$host/opt/optictl/bin/optictl" ]; then
    "$UV" venv --quiet --no-project --python "$PYTHON" "$host/opt/optictl"
    "$UV" pip install --quiet --python "$host/opt/optictl/bin/python" --no-deps --require-hashes --no-index --link-mode copy \\
      --compile-bytecode --find-links "$host/opt/wheels" --requirements "$host/opt/wheels/$REQUIREMENTS"
  fi
  cp "$FILES"/* "$host/etc/optillm-proxy"
  "$host/opt/optictl/bin/optictl" install --root "$host" --yes --wheelhouse "$host/opt/wheels" \\
    --python "$PYTHON"
done
"""
COLUMNS = (
    "hosts",
    "run",
    "fleet s",
    "loop s",
    "fleet / loop",
    "fleet s a host",
    "loop s a host",
    "CPU s a host: its own",
    "controller",
    "loop",
    "controller RSS MiB",
    "PSS MiB",
)
PREAMBLE = f"""\
# Many hosts

Written by `python -m benchmarks.fleet`. A host is a deployment below a directory of its own (`--root`), reached over Ansible's
local connection. All of them share the cores of one machine: many at once are hardly faster there than one after the other.
So the work of the hosts, which real ones do on their own cores, is told apart from the controller's: between Ansible and a
host's Python stands a script that notes the CPU time of each module. The loop's is that of all it starts.

- fleet: `optictl fleet apply --batch 1,{BATCH} --forks {FORKS}`: one canary, then {BATCH} at a time. Every host is looked
  at first; each gets the wheels and optictl, builds the release, asks the live upstream for all four strategies, switches and
  checks.
- loop: a shell loop, one host after the other: copies the wheels, installs optictl, writes the configuration and the keys,
  runs `optictl install --root HOST --yes`. It does not look first and does not ask the live upstream. It is timed over at
  most {LOOPED} hosts; `~`: the rest is reckoned.
- "{FIRST}": nothing is there. "{LINKED}", from {BUILT_BEFORE} hosts on: the same, but the release lies there, linked from
  one that was built before: so many builds would only keep the shared cores busy. "{AGAIN}": the same command again.
- The wheelhouse is made before and kept; the hosts of both sides share one cache of uv. Memory: the most that was seen of the
  controller's processes together; RSS counts a page that they share once for each, PSS once.
"""


@dataclass(frozen=True)
class Took:
    """One command: seconds, CPU seconds with all that it started, and the most memory of it (without the hosts'), in MiB.

    `others`: the share of the machine's cores that other work took meanwhile.
    """

    seconds: float
    cpu: float
    others: float
    rss: float
    pss: float


@dataclass(frozen=True)
class Line:
    """One run over so many hosts. `host_cpu`: seconds of all hosts together; `looped` of them took `loop`."""

    hosts: int
    run: str
    fleet: Took
    host_cpu: float
    loop: Took
    looped: int

    @property
    def own(self) -> float:
        """CPU seconds of one host."""
        return self.host_cpu / self.hosts

    @property
    def controller(self) -> float:
        """CPU seconds of the controller."""
        return self.fleet.cpu - self.host_cpu

    @property
    def loop_seconds(self) -> float:
        """Of all hosts."""
        return self.loop.seconds / self.looped * self.hosts

    @property
    def workers(self) -> int:
        """Hosts at the same moment."""
        return min(BATCH, FORKS, self.hosts - 1)

    def cells(self) -> tuple[str, ...]:
        """A line of the table."""
        about = "" if self.looped == self.hosts else "~"
        return (
            str(self.hosts),
            self.run,
            number(self.fleet.seconds),
            about + number(self.loop_seconds),
            f"**{ratio_text(self.fleet.seconds / self.loop_seconds)}**",
            number(self.fleet.seconds / self.hosts),
            number(self.loop.seconds / self.looped),
            number(self.own),
            number(self.controller / self.hosts),
            number(self.loop.cpu / self.looped),
            number(self.fleet.rss),
            number(self.fleet.pss),
        )


def _measured(
    command: Sequence[str], environment: dict[str, str], log: Path, without: str = ""
) -> Took:
    """Run a command to its good end, what it says in `log`; processes of `without` do not count as its memory."""
    rss, pss, ended, usage, status = 0.0, 0.0, 0, None, 0
    with log.open("wb") as output, log.with_suffix(".err").open("wb") as errors:
        since, busy = time.perf_counter(), _busy()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            env=environment,
            start_new_session=True,
        )
        try:
            while not ended:
                time.sleep(PAUSE)
                with suppress(
                    OSError, KeyError
                ):  # one of its processes ended meanwhile: at the next look
                    now = memory(process.pid, without)
                    rss, pss = max(rss, now[0]), max(pss, now[1] or 0)
                ended, status, usage = os.wait4(process.pid, os.WNOHANG)
            process.returncode = os.waitstatus_to_exitcode(status)
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait(120)
        seconds, busy = time.perf_counter() - since, _busy() - busy
    if process.returncode or usage is None:
        errors_said = "\n".join(log.with_suffix(".err").read_text().splitlines()[-20:])
        raise RuntimeError(
            f"{command[:3]} ended with {process.returncode}:\n{log.read_text()}\n{errors_said}"
        )
    cpu = usage.ru_utime + usage.ru_stime
    return Took(seconds, cpu, max(0.0, busy - cpu) / seconds / (os.cpu_count() or 1), rss, pss)


def _busy() -> float:
    """CPU seconds that all cores have worked since the start of the machine."""
    user, nice, system, _idle, _waiting, *more = map(
        int, Path("/proc/stat").read_text().splitlines()[0].split()[1:8]
    )
    return (user + nice + system + sum(more)) / os.sysconf("SC_CLK_TCK")


class Yard:
    """Where the hosts are, and what the controller and the loop need."""

    def __init__(self, place: Path, base_url: str) -> None:
        self.place = place
        self.config = {"upstream": {"base_url": base_url}}
        self.account, self.records = place / "account", place / "records"
        self.environment = {
            **os.environ,
            "UV_CACHE_DIR": str(place / "cache"),
            "ANSIBLE_HOME": str(place / "ansible"),
            "NO_COLOR": "1",
        }
        self.account.write_text(_ACCOUNT.format(python=PYTHON, records=self.records))
        self.account.chmod(0o755)
        (place / "files").mkdir()
        config = Config.model_validate(self.config)
        for name, text in (
            ("optictl.yaml", render.configuration(config)),
            ("env", f"OPENAI_API_KEY={UPSTREAM_KEY}\n"),
            ("proxy_key", f"{PROXY_KEY}\n"),
        ):
            files.write(place / "files" / name, text, 0o600 if name != "optictl.yaml" else 0o644)

    def hosts(self, count: int, side: str) -> list[Path]:
        """The directories of so many hosts."""
        return [self.place / f"{side}-{count}" / f"h{one:02}" for one in range(1, count + 1)]

    def roll_out(self, hosts: Sequence[Path], changes: bool) -> tuple[Took, float]:
        """`optictl fleet apply`: what it took, and the CPU seconds of the hosts. `changes`: whether each is to be changed."""
        common = {
            "ansible_connection": "local",
            "optillm_proxy_config": self.config,
            "optillm_proxy_upstream_key": UPSTREAM_KEY,
            "optillm_proxy_key": PROXY_KEY,
            "optillm_proxy_python": PYTHON,
            "ansible_python_interpreter": str(self.account),
        }
        described = {host.name: {"optillm_proxy_root": str(host)} for host in hosts}
        inventory, log = self.place / "inventory.json", self.place / "fleet.log"
        inventory.write_text(json.dumps({"all": {"vars": common, "hosts": described}}))
        self.records.write_text("")
        command = [
            str(PROGRAM),
            "fleet",
            "apply",
            "--yes",
            "-i",
            str(inventory),
            "--batch",
            f"1,{BATCH}",
            "--forks",
            str(FORKS),
            "--output",
            "json",
        ]
        took = _measured(command, self.environment, log, str(self.account))
        if [one["data"]["changed"] for one in json.loads(log.read_text())["results"]] != [
            changes
        ] * len(hosts):
            raise RuntimeError(
                f"not every host was {'changed' if changes else 'left as it was'}:\n{log.read_text()}"
            )
        return took, sum(map(float, self.records.read_text().split()))

    def loop(self, hosts: Sequence[Path], changes: bool, wheels: Path, requirements: str) -> Took:
        """The hand-written loop; `changes` as above."""
        variables = {
            "WHEELS": str(wheels),
            "REQUIREMENTS": requirements,
            "UV": os.fsdecode(find_uv_bin()),
            "PYTHON": PYTHON,
            "FILES": str(self.place / "files"),
        }
        command, log = ["/bin/sh", "-c", _LOOP, "loop", *map(str, hosts)], self.place / "loop.log"
        took = _measured(command, {**self.environment, **variables}, log)
        if log.read_text().count("No changes.") != (0 if changes else len(hosts)):
            raise RuntimeError(
                f"not every host was {'changed' if changes else 'left as it was'}:\n{log.read_text()}"
            )
        return took


def _link(release: Path, host: Path) -> None:
    """A release that was built on one host, on another one."""
    target = host / "opt/optillm-proxy/releases" / release.name
    shutil.copytree(release, target, symlinks=True, copy_function=os.link)


def _wheelhouse(yard: Yard) -> tuple[Path, str]:
    """The wheelhouse that the roll-outs will ship, as a directory of just its files; and the requirements of optictl."""
    python = uv.inspect(Path(PYTHON))
    if python is None:
        raise RuntimeError(f"there is no {PYTHON}")
    glibc = [int(word) for word in platform.libc_ver()[1].split(".")]
    kind = target(platform.machine(), python.version, glibc)
    made = wheelhouse.make(kind, Config().optillm.version, "proxy", None, say)
    wheels = yard.place / "wheels"
    wheels.mkdir()
    for one in made.files:
        shutil.copy2(made.directory / one.name, wheels)
    return wheels, made.requirements


def _line(
    yard: Yard,
    run: str,
    hosts: Sequence[Path],
    looped: Sequence[Path],
    wheels: Path,
    requirements: str,
) -> Line:
    say(f"fleet: {len(hosts)} hosts, {run}")
    took, cpu = yard.roll_out(hosts, run != AGAIN)
    say(f"fleet: {took.seconds:.0f} s; the loop over {len(looped)} hosts")
    loop = yard.loop(looped, run != AGAIN, wheels, requirements)
    line = Line(len(hosts), run, took, cpu, loop, len(looped))
    say(
        "fleet: "
        + ", ".join(f"{name} {cell}" for name, cell in zip(COLUMNS, line.cells(), strict=True))
    )
    return line


def _measure(yard: Yard, sizes: Sequence[int], wheels: Path, requirements: str) -> Iterator[Line]:
    release = None
    for size in sizes:
        hosts, looped = yard.hosts(size, "fleet"), yard.hosts(size, "loop")[:LOOPED]
        linked = release if size >= BUILT_BEFORE else None
        if linked:
            for host in (*hosts, *looped):
                _link(linked, host)
        yield _line(yard, LINKED if linked else FIRST, hosts, looped, wheels, requirements)
        yield _line(yard, AGAIN, hosts, looped, wheels, requirements)
        release = release or (hosts[0] / "opt/optillm-proxy/current").resolve()
        for host in (*hosts, *looped):
            if not release.is_relative_to(host):
                shutil.rmtree(host)


# -- what many hosts would take


def _slope(of: Callable[[Line], float], small: Line, large: Line) -> float:
    return max(0.0, (of(large) - of(small)) / (large.hosts - small.hosts))


def _forecast(lines: Sequence[Line], wheels: float) -> str:
    """What the figures say of MANY hosts; `wheels`: MB that a host is sent."""
    firsts = [line for line in lines if line.run != AGAIN]
    agains = [line for line in lines if line.run == AGAIN]
    built, again = [line for line in firsts if line.run == FIRST][-1], agains[-1]
    costs = [_slope(lambda line: line.controller, kind[0], kind[-1]) for kind in (firsts, agains)]
    small, middle, large = firsts[0], firsts[-2], firsts[-1]
    a_host = _slope(lambda line: line.fleet.pss, middle, large)
    more = middle.workers - small.workers
    a_worker = (
        max(
            0.0, (middle.fleet.pss - small.fleet.pss - a_host * (middle.hosts - small.hosts)) / more
        )
        if more
        else 0.0
    )
    base = large.fleet.pss - a_worker * large.workers - a_host * large.hosts
    # the default, 1,25%
    batches = [1, *[MANY // 4] * 3, MANY - 1 - MANY // 4 * 3]
    rows = []
    for forks in MANY_FORKS:
        rounds = sum(math.ceil(batch / forks) for batch in batches)
        rows.append(
            (
                str(forks),
                *(number(one.own * rounds / 60) for one in (built, again)),
                *(
                    number(cost * forks / one.own)
                    for cost, one in zip(costs, (built, again), strict=True)
                ),
                number(base + a_worker * forks + a_host * MANY),
            )
        )
    head = (
        "`--forks`",
        "first roll-out, min",
        "no changes, min",
        "controller's cores in use: first",
        "no changes",
        "its memory (PSS), MiB",
    )
    hours = built.loop.cpu / built.looped * MANY / 3600
    way, minutes = wheels * MANY / 1000, wheels * MANY * 8 / 1000 / 60
    return f"""\
## {MANY:,} hosts

A forecast from these figures, not a measurement. As CPU times depend least on what else the machine does, a host is taken
to need as long as its CPU time: {number(built.own)} s from nothing, {number(again.own)} s without changes. Real hosts
do that on cores of their own, as many at a time as `--forks` allows, in the batches of `--batch 1,25%`: one, then
{MANY // 4} each. A host costs the controller {number(costs[0])} s of CPU, {number(costs[1])} s without changes. The
controller's memory is {number(base)} MiB, {number(a_worker)} more for each host that is worked on at the moment and
{number(a_host)} for each in the inventory.

{_table(head, rows)}

Where more cores are in use than the controller has, they are what is waited for; a batch waits for its slowest host. The
loop would take {number(hours)} h. Not in these figures: ssh (about a dozen tasks a host), and the way of the wheels, which
are sent once: {number(wheels)} MB a host, {number(way)} GB in all, {number(minutes)} min of a line of 1 Gbit/s.
"""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *rows])


@contextmanager
def _yard() -> Iterator[Yard]:
    with open_directory() as place, StandIn(key=UPSTREAM_KEY).running() as upstream:
        yield Yard(place, upstream.base_url)


def _page(lines: Sequence[Line], wheels: float, when: str, before: float) -> str:
    """FLEET.md; `wheels`: MB that a host is sent, `before`: the load average at the beginning."""
    others = [took.others for line in lines for took in (line.fleet, line.loop)]
    load = f"load {before:.1f} before it began; other work took {min(others):.0%} to {max(others):.0%} of the cores meanwhile"
    machine = f"{when}, {os.cpu_count()} cores ({platform.machine()}), {load}"
    forecast = (
        f"\n{_forecast(lines, wheels)}"
        if lines[0].hosts < lines[-1].hosts and lines[-1].run == AGAIN
        else ""
    )
    return (
        f"{PREAMBLE}\n{machine}.\n\n{_table(COLUMNS, [line.cells() for line in lines])}\n{forecast}"
    )


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fleet", description="One deployment on many hosts."
    )
    parser.add_argument(
        "--hosts",
        default=",".join(map(str, SIZES)),
        metavar="N,N",
        help="how many hosts, a run each",
    )
    parser.add_argument(
        "--output", type=Path, default=Path(__file__).with_name("FLEET.md"), metavar="FILE"
    )
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    before, when = os.getloadavg()[0], time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    lines: list[Line] = []
    with _yard() as yard:
        say("fleet: the wheelhouse (not measured)")
        wheels, requirements = _wheelhouse(yard)
        size = sum(path.stat().st_size for path in wheels.iterdir()) / 1e6
        for line in _measure(
            yard, [int(word) for word in options.hosts.split(",")], wheels, requirements
        ):
            # a run that is ended early leaves what it has measured
            lines = sorted([*lines, line], key=lambda one: one.hosts)
            options.output.write_text(_page(lines, size, when, before))
    print(options.output.read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
