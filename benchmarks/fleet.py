"""`python -m benchmarks.fleet [--hosts 3,10,30] [--output FILE]`: many hosts and a shell loop.

A host is a deployment in a separate directory, over Ansible's local connection. All hosts share the
controller's cores. A script between Ansible and the Python of a host records the CPU time of each
module; the rest of a roll-out's CPU time is the controller's. FLEET.md is rewritten after each run.
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
from optictl.host import files, uv
from optictl.host.wheels import cache
from optictl.proof.standin import StandIn
from optictl.releases import wheelhouse
from optictl.releases.targets import target
from testing.support import PROXY_KEY, UPSTREAM_KEY, open_directory

SIZES = (3, 10, 30)
#: Batch size after the canary, and hosts at the same time.
BATCH, FORKS = 8, 10
#: With this number of hosts or more, the release is linked from an earlier run before the
#: measurement.
BUILT_BEFORE = 10
#: Hosts of the measured loop. It works on one host after the other.
LOOPED = 3
#: Seconds between two measurements of the controller's memory.
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
#: A typical hand-written loop over hosts, with local wheels. `cp` replaces scp.
_LOOP = """\
set -e
for host in "$@"; do
  mkdir -p "$host/opt/wheels" "$host/etc/optillm-proxy"
  cp -u "$WHEELS"/* "$host/opt/wheels"
  if ! [ -x "$host/opt/optictl/bin/optictl" ]; then
    "$UV" venv --quiet --no-project --python "$PYTHON" "$host/opt/optictl"
    "$UV" pip install --quiet --python "$host/opt/optictl/bin/python" --no-deps --require-hashes \\
      --no-index --link-mode copy --compile-bytecode --find-links "$host/opt/wheels" \\
      --requirements "$host/opt/wheels/$REQUIREMENTS"
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

Written by `python -m benchmarks.fleet`. A host is a deployment in a separate directory (`--root`),
over Ansible's local connection. All hosts share the cores of one machine: parallel work is hardly
faster than sequential work. Real hosts use their own cores. A script between Ansible and the Python
of a host therefore records the CPU time of each module, to separate the work of the hosts from the
work of the controller. For the loop, it is the CPU time of all its processes.

- fleet: `optictl fleet apply --batch 1,{BATCH} --forks {FORKS}`: one canary, then {BATCH} at a
  time. It reads the facts of every host. Each host gets the wheels and optictl, builds the release,
  tests all four strategies with the live upstream, switches and checks.
- loop: a shell loop, one host after the other. It copies the wheels, installs optictl, writes the
  configuration and the keys, and runs `optictl install --root HOST --yes`, without the facts and
  the live tests. It is measured for at most {LOOPED} hosts; `~`: extrapolated.
- "{FIRST}": an empty host. "{LINKED}", for {BUILT_BEFORE} hosts or more: the release is linked from
  an earlier build, because more builds would only keep the shared cores busy. "{AGAIN}": the same
  command again.
- The wheelhouse exists before the measurement. The hosts of both sides share one cache of uv.
  Memory is the maximum of the controller's processes together. RSS counts a shared page once per
  process, PSS once.
"""


@dataclass(frozen=True)
class Took:
    """The cost of a command: seconds, CPU seconds of all its processes, maximum memory in MiB.

    `others`: the share of the machine's cores that other work took meanwhile.
    """

    seconds: float
    cpu: float
    others: float
    rss: float
    pss: float


@dataclass(frozen=True)
class Line:
    """A run over `hosts`. `host_cpu`: CPU seconds of all hosts. `loop`: for `looped` hosts."""

    hosts: int
    run: str
    fleet: Took
    host_cpu: float
    loop: Took
    looped: int

    @property
    def own(self) -> float:
        """CPU seconds per host."""
        return self.host_cpu / self.hosts

    @property
    def controller(self) -> float:
        """CPU seconds of the controller, for all hosts."""
        return self.fleet.cpu - self.host_cpu

    @property
    def loop_seconds(self) -> float:
        """Seconds of the loop for all hosts."""
        return self.loop.seconds / self.looped * self.hosts

    @property
    def workers(self) -> int:
        """The number of hosts at the same time."""
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
    """Run a command that must succeed.

    `log`: its output. `without`: processes whose memory is not counted.
    """
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
                with suppress(OSError, KeyError):  # a process has ended meanwhile: measure again
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
    """The CPU seconds of all cores since boot, without idle time."""
    user, nice, system, _idle, _waiting, *more = map(
        int, Path("/proc/stat").read_text().splitlines()[0].split()[1:8]
    )
    return (user + nice + system + sum(more)) / os.sysconf("SC_CLK_TCK")


class Yard:
    """The directories of the hosts, and the files of the controller and the loop."""

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
        """The directories of this number of hosts."""
        return [self.place / f"{side}-{count}" / f"h{one:02}" for one in range(1, count + 1)]

    def roll_out(self, hosts: Sequence[Path], changes: bool) -> tuple[Took, float]:
        """Run `optictl fleet apply`: its cost, and the CPU seconds of the hosts.

        `changes`: whether every host must change.
        """
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
                f"not every host was {'changed' if changes else 'left as it was'}:\n"
                f"{log.read_text()}"
            )
        return took, sum(map(float, self.records.read_text().split()))

    def loop(self, hosts: Sequence[Path], changes: bool, wheels: Path, requirements: str) -> Took:
        """Run the loop. `changes`: whether every host must change."""
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
                f"not every host was {'changed' if changes else 'left as it was'}:\n"
                f"{log.read_text()}"
            )
        return took


def _link(release: Path, host: Path) -> None:
    """Link a release from one host to another."""
    target = host / "opt/optillm-proxy/releases" / release.name
    shutil.copytree(release, target, symlinks=True, copy_function=os.link)


def _wheelhouse(yard: Yard) -> tuple[Path, str]:
    """The wheelhouse in a separate directory, and the name of its requirements file."""
    python = uv.inspect(Path(PYTHON))
    if python is None:
        raise RuntimeError(f"there is no {PYTHON}")
    glibc = [int(word) for word in platform.libc_ver()[1].split(".")]
    kind = target(platform.machine(), python.version, glibc)
    wanted = wheelhouse.Request(kind, (Config().optillm.version,), "proxy")
    made = wheelhouse.make(cache() / kind.name, wanted, None, say)
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


# -- forecast


def _slope(of: Callable[[Line], float], small: Line, large: Line) -> float:
    return max(0.0, (of(large) - of(small)) / (large.hosts - small.hosts))


def _forecast(lines: Sequence[Line], wheels: float) -> str:
    """A forecast for MANY hosts. `wheels`: MB to send to each host."""
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

This is a forecast from the figures above, not a measurement. It assumes that a host takes its CPU
time, which other load affects least: {number(built.own)} s for an empty host,
{number(again.own)} s without changes. Real hosts use their own cores, `--forks` hosts at a time,
in the batches of `--batch 1,25%`: one, then {MANY // 4} each. A host costs the controller
{number(costs[0])} s of CPU time, {number(costs[1])} s without changes. The controller needs
{number(base)} MiB of memory, {number(a_worker)} more for each active host, and {number(a_host)} for
each host in the inventory.

{_table(head, rows)}

When the controller has fewer cores than the table says, it is the bottleneck. A batch waits for its
slowest host. The loop would take {number(hours)} h. These figures do not include SSH (about a dozen
tasks per host) and the transfer of the wheels, once: {number(wheels)} MB per host, {number(way)} GB
in all, {number(minutes)} min at 1 Gbit/s.
"""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *rows])


@contextmanager
def _yard() -> Iterator[Yard]:
    with open_directory() as place, StandIn(key=UPSTREAM_KEY).running() as upstream:
        yield Yard(place, upstream.base_url)


def _page(lines: Sequence[Line], wheels: float, when: str, before: float) -> str:
    """The text of FLEET.md.

    `wheels`: MB to send to each host. `before`: load average at the start.
    """
    others = [took.others for line in lines for took in (line.fleet, line.loop)]
    load = (
        f"load {before:.1f} at the start; "
        f"other work took {min(others):.0%} to {max(others):.0%} of the cores"
    )
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
    """Measure, print the tables, and write them."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fleet", description="One deployment on many hosts."
    )
    parser.add_argument(
        "--hosts",
        default=",".join(map(str, SIZES)),
        metavar="N,N",
        help="numbers of hosts, one run for each",
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
            # write after each run: an interrupted benchmark keeps its results
            lines = sorted([*lines, line], key=lambda one: one.hosts)
            options.output.write_text(_page(lines, size, when, before))
    print(options.output.read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
