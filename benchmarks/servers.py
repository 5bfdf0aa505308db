"""The programs under test, on free loopback ports, not as root. They are always stopped."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from benchmarks.lab import ROOT
from benchmarks.slow_upstream import Calls
from optictl.deployment import render
from optictl.deployment.config import Config
from optictl.deployment.config_sections import Limits
from optictl.deployment.paths import NAME
from optictl.host import files, network, processes
from optictl.proof import trial

#: Keys of the benchmark. They protect nothing.
PROXY_KEY, UPSTREAM_KEY = "optillm-benchmark-key-0123456789", "x"
READY_SECONDS = 180
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Server:
    """A running server. `started`: seconds from spawn to the first 200 of /health."""

    port: int
    pid: int
    started: float


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-8:])


def _wait(process: subprocess.Popen[bytes], port: int, since: float, log: Path) -> float:
    """Request /health every 10 ms until it answers. An accepted connection waits for its answer."""
    while (elapsed := time.perf_counter() - since) < READY_SECONDS:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode}:\n{_tail(log)}")
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        with suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return time.perf_counter() - since
        connection.close()
        time.sleep(0.01)
    raise RuntimeError(f"the server was not ready after {elapsed:.0f} s:\n{_tail(log)}")


@contextmanager
def _place(config: Config) -> Iterator[tuple[Path, Path, IO[bytes]]]:
    """A HOME with the proxy_config.yaml of this configuration, and a log."""
    with files.scratch() as directory:
        files.make_directory(directory / "home" / ".optillm")
        files.write(
            directory / "home/.optillm/proxy_config.yaml", render.proxy_config(config), 0o644
        )
        with (directory / "log").open("wb") as output:
            yield directory / "home", directory / "log", output


@contextmanager
def guarded(
    release: Path,
    base_url: str,
    strategies: Sequence[str] = ("moa",),
    workers: int = 1,
    **limits: int,
) -> Iterator[Server]:
    """A release, started as its unit starts it."""
    config = _config(base_url, strategies, workers=workers, limits=Limits(**limits))
    with configured(release, config) as server:
        yield server


def _config(base_url: str, strategies: Sequence[str], **keys: Any) -> Config:
    """A configuration for a free port. `keys`: those of optictl.yaml."""
    config = Config(strategies=tuple(strategies), **keys)
    return config.moved(network.free_port(), base_url, request=60, drain=1)


@contextmanager
def configured(release: Path, config: Config) -> Iterator[Server]:
    """A release with this configuration, started as its unit starts it."""
    with _place(config) as (home, log, output):
        since = time.perf_counter()
        secrets = trial.Secrets.of(PROXY_KEY, UPSTREAM_KEY)
        with trial.running(config, release, home, secrets, output=output) as process:
            port = config.listen.port
            yield Server(port, process.pid, _wait(process, port, since, log))


@contextmanager
def bare(venv: Path, base_url: str, **environment: str) -> Iterator[Server]:
    """OptiLLM, started as its documentation says: the prefix selects the strategy."""
    config = _config(base_url, ("moa",))
    with _place(config) as (home, log, output):
        command = [
            str(venv / "bin/optillm"),
            "--host",
            "127.0.0.1",
            "--port",
            str(config.listen.port),
            "--base-url",
            base_url,
            "--model",
            "jerry-xl",
            "--optillm-api-key",
            PROXY_KEY,
        ]
        # the full install would wait for model files without a network
        variables = {**trial.environment(home, UPSTREAM_KEY), "HF_HUB_OFFLINE": "1", **environment}
        since = time.perf_counter()
        process = processes.start(
            command, variables, home, output, processes.service_identity(NAME)
        )
        try:
            port = config.listen.port
            yield Server(port, process.pid, _wait(process, port, since, log))
        finally:
            processes.stop(process, 5)


@contextmanager
def upstream(seconds: float = 0.0) -> Iterator[int]:
    """An upstream with this response time in seconds. Yields its port."""
    with _program("benchmarks.upstream", str(seconds)) as port:
        yield port


@contextmanager
def slow_upstream(mode: str, final_chunks: int) -> Iterator[int]:
    """An upstream as slow as a model, see `benchmarks.slow_upstream`. Yields its port."""
    with _program("benchmarks.slow_upstream", mode, str(final_chunks)) as port:
        yield port


@contextmanager
def _program(module: str, *arguments: str) -> Iterator[int]:
    """A program that prints its port. Yields the port."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.terminate()
        process.wait(10)


def completions(port: int) -> int:
    """The number of completions of the upstream so far."""
    return int(_counted(port)["completions"])


def calls(port: int) -> Calls:
    """The calls of a slow upstream so far."""
    return Calls(**_counted(port))


def _counted(port: int) -> dict[str, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/count")
    counted: dict[str, Any] = json.loads(connection.getresponse().read())
    connection.close()
    return counted


def _fields(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the program's name, which may contain blanks."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def tree(pid: int, without: str = "") -> list[int]:
    """A process and its descendants. `without`: a word in command lines of omitted subtrees."""
    parents = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with suppress(OSError):
                if not without or without.encode() not in Path(entry.path, "cmdline").read_bytes():
                    parents[int(entry.name)] = int(_fields(int(entry.name))[1])
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


def cpu_seconds(pid: int) -> float:
    """The CPU time of a process tree in seconds, user and system."""
    return sum(int(f[11]) + int(f[12]) for f in map(_fields, tree(pid))) / _TICK


def memory(pid: int, without: str = "") -> tuple[float, float | None]:
    """RSS and PSS of a process tree in MiB. PSS is None when the kernel does not show it.

    PSS counts a page of n processes as 1/n for each.
    """
    rss = pss = 0
    readable = True
    for one in tree(pid, without):
        status = dict(
            line.split(":", 1) for line in Path(f"/proc/{one}/status").read_text().splitlines()
        )
        rss += int(status["VmRSS"].split()[0])
        try:
            lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
            pss += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        except (OSError, StopIteration):
            readable = False
    return rss / 1024, pss / 1024 if readable else None


@dataclass(frozen=True)
class Use:
    """The resources of a process tree: RSS in MiB, threads, open files."""

    memory: float
    threads: int
    files: int


def use(pid: int) -> Use:
    """The present resources of a process tree."""
    pids = tree(pid)
    files_open = sum(sum(1 for _ in os.scandir(f"/proc/{one}/fd")) for one in pids)
    return Use(memory(pid)[0], sum(int(_fields(one)[17]) for one in pids), files_open)


def empty_directory(place: Path) -> Path:
    """A directory that the program under test can write to."""
    path = Path(tempfile.mkdtemp(dir=place))
    identity = processes.service_identity(NAME)
    if identity.uid is not None and identity.gid is not None:
        os.chown(path, identity.uid, identity.gid)
    return path
