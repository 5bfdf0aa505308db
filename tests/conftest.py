"""Fixtures: a real release of OptiLLM 0.3.12 from the shipped lock, and optictl from its wheel."""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from testing.kept import KEPT, kept, kept_venv, litellm_venv
from testing.load import table
from testing.support import ROOT, open_directory, packaged

# no test is timed: the machine may be busy
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")
#: The directories that take minutes, the longest first: three processes (`-n 3`) then end at about
#: the same time. `takeover` is before `fleet`: both it and `systemd` have quiet tests, which would
#: wait for the long ones of `fleet`.
LONGEST_FIRST = (
    "systemd",
    "faults",
    "takeover",
    "fleet",
    "systems",
    "model",
    "guard",
    "routing",
    "litellm",
    "install",
    "cli",
    "transactions",
    "checks",
    "top",
    "compare",
    "traces",
    "pages",
    "host",
    "unit",
)


#: Modules of `systemd` that need no deployment beside them, or only for a moment: with a separate
#: machine they run in another process.
_TAKEOVER = ("test_envfiles", "test_handmade", "test_preflight", "test_takeover", "test_unitfile")


def _directory(nodeid: str) -> str:
    """`guard` of `tests/integration/guard/test_door.py::test_a`, `unit` of `tests/unit/x.py::b`."""
    tier, *rest = nodeid.split("/")[1:]
    directory = tier if len(rest) == 1 else rest[0]
    if directory == "systemd" and rest[1].startswith(_TAKEOVER):
        return "takeover"
    return directory


class _ByDirectory(LoadScopeScheduling):
    """A directory's tests stay in one process: they share its servers and machines."""

    def _split_scope(self, nodeid: str) -> str:
        directory = _directory(nodeid)
        shares_nothing = directory in ("host", "unit")
        return nodeid.split("::")[0] if shares_nothing else directory


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    config.option.loadscopereorder = False  # as collected, not by how many tests there are
    return _ByDirectory(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The directories in their order, others last; within one, the tests stay as they are."""
    rank = {name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(
        key=lambda item: (rank.get(_directory(item.nodeid), len(rank)), _directory(item.nodeid))
    )


def _tell_seconds(terminalreporter: pytest.TerminalReporter) -> None:
    """After a long run, the seconds of each directory with its fixtures: for LONGEST_FIRST."""
    seconds: dict[str, float] = {}
    for report in itertools.chain.from_iterable(terminalreporter.stats.values()):
        if isinstance(report, pytest.TestReport):
            name = _directory(report.nodeid)
            seconds[name] = seconds.get(name, 0.0) + report.duration
    if sum(seconds.values()) > 300:
        terminalreporter.section("seconds of each directory")
        longest = sorted(seconds.items(), key=lambda pair: -pair[1])
        terminalreporter.write_line(", ".join(f"{name} {took:.0f}" for name, took in longest))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """While a test marked `quiet` runs, other processes of the run wait: it measures waiting."""
    KEPT.mkdir(mode=0o755, exist_ok=True)
    with (KEPT / "turnstile.lock").open("w") as turnstile, (KEPT / "quiet.lock").open("w") as lock:
        # a quiet test holds the turnstile until the others' tests have ended: none begins meanwhile
        fcntl.flock(turnstile, fcntl.LOCK_EX)
        fcntl.flock(lock, fcntl.LOCK_EX if item.get_closest_marker("quiet") else fcntl.LOCK_SH)
        fcntl.flock(turnstile, fcntl.LOCK_UN)
        yield


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What tests have measured, in the words that they recorded, and what each directory took."""
    _tell_seconds(terminalreporter)
    reports = [
        report for kind in ("passed", "failed") for report in terminalreporter.getreports(kind)
    ]
    measured = [
        pair for report in reports if report.when == "call" for pair in report.user_properties
    ]
    if measured:
        terminalreporter.section("measured")
        terminalreporter.write_line("\n".join(text for name, text in measured if name == "said"))
        terminalreporter.write_line(table([cells for name, cells in measured if name == "load"]))
    if faults := [cells for name, cells in measured if name == "fault"]:
        terminalreporter.section(
            "faults, and who saw them: check, systemctl is-active, curl /health, /v1/models, "
            "LiteLLM /health"
        )
        terminalreporter.write_line("\n".join(" | ".join(cells) for cells in faults))


def _unpack_prometheus(directory: Path) -> None:
    """Not installed: Debian's package would start a server in every booted machine, too."""
    download = ["apt-get", "download", "-q", "prometheus"]
    if subprocess.run(
        download, cwd=directory, capture_output=True
    ).returncode:  # there are no lists of packages yet
        subprocess.run(["apt-get", "update", "-q"], check=True, capture_output=True)
        subprocess.run(download, cwd=directory, check=True, capture_output=True)
    (package,) = directory.glob("*.deb")
    subprocess.run(["dpkg", "-x", package, directory], check=True)
    package.unlink()


@pytest.fixture(scope="session")
def prometheus_program() -> Path:
    """The `prometheus` of Debian's package, kept between sessions."""
    return kept("prometheus", _unpack_prometheus) / "usr/bin/prometheus"


@pytest.fixture(scope="session")
def locked_venv() -> Path:
    """A venv with the shipped lock's closure, kept between sessions.

    OPTICTL_TEST_OPTILLM names another OptiLLM with a lock.
    """
    lock = (
        ROOT
        / f"templates/locks/optillm-{os.environ.get('OPTICTL_TEST_OPTILLM', '0.3.12')}-proxy.txt"
    )
    mark = hashlib.sha256(lock.read_bytes()).hexdigest()[:12]
    return kept_venv(mark, "--no-deps", "--require-hashes", "-r", str(lock))


@pytest.fixture(scope="session")
def release(locked_venv: Path) -> Iterator[Path]:
    """A directory with `.venv/`, `guard/` and an empty `work/`, which every user can read.

    The guard is a copy for this session.
    """
    with open_directory() as session:
        (session / ".venv").symlink_to(locked_venv)
        (session / "work").mkdir()
        shutil.copytree(
            ROOT / "optictl/guard", session / "guard", ignore=shutil.ignore_patterns("__pycache__")
        )
        yield session


@pytest.fixture(scope="session")
def program() -> Iterator[Path]:
    """The `optictl` of a wheel built from this checkout, in a venv on the system's Python."""
    with packaged() as optictl:
        yield optictl


@pytest.fixture(scope="session")
def litellm_program() -> Path:
    """The `litellm` program of a kept venv. OPTICTL_TEST_LITELLM names another version."""
    return litellm_venv() / "bin/litellm"
