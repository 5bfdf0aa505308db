"""The wheel in an empty environment: no extra, no root, no systemd, no program but Python."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from uv import find_uv_bin

import optictl
from optictl.cli import app
from testing.support import ROOT, UNPRIVILEGED, open_directory, packaged

pytestmark = pytest.mark.slow

DRIVER = Path(__file__).with_name("every_command.py")
#: The words that a command needs, besides its name.
NEEDED: dict[str, tuple[str, ...]] = {
    "top": ("--count", "1"),
    "demo": ("--once", "--directory", "/nowhere/demo"),
    "trace": ("moa-jerry-xl", "Hello"),
    "smoke": ("moa-jerry-xl",),
    "upgrade": ("0.3.13", "--yes"),
    "rollback": ("--yes",),
    "uninstall": ("--yes",),
    "wheelhouse": ("wheels", "--dry-run"),
    "fleet plan": ("-i", "a,"),
    "fleet apply": ("-i", "a,"),
    "fleet status": ("-i", "a,"),
    "fleet upgrade": ("0.3.13", "-i", "a,"),
    "fleet rollback": ("-i", "a,"),
    "fleet check": ("-i", "a,"),
    "fleet smoke": ("moa-jerry-xl", "-i", "a,"),
    "fleet wheelhouse": ("--architecture", "x86_64", "--python", "3.12"),
}
#: They print what they are asked for, whatever is missing.
PRINTING = ("render-", "config ", "schema ", "sbom", "wheelhouse", "releases", "fleet collections")
#: They show a state, and what fixes it only where something is wrong.
SHOWING = ("check", "status", "top")
#: With a deployment's directory, these would build a release or wait for one.
LONG = ("install", "demo")


def leaves(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, bool]]:
    """Every command, and whether it has --root."""
    below = getattr(command, "commands", {})
    if not below:
        yield " ".join(words), any(p.name == "root" for p in command.params)
    for name, inner in below.items():
        yield from leaves(inner, (*words, name))


COMMANDS = dict(leaves(typer.main.get_command(app)))


@pytest.fixture(scope="module")
def bare() -> Iterator[Path]:
    """The Python of an environment that has the wheel and what it requires, and nothing else."""
    with packaged() as program:
        yield program.with_name("python")


def run(bare: Path, lines: list[list[str]], home: Path) -> list[tuple[int, str]]:
    """What command lines end with and print, in an environment without any program."""
    home.mkdir(exist_ok=True)
    home.chmod(0o755)
    identity: dict[str, Any] = {}
    if os.getuid() == 0:
        identity = {"user": UNPRIVILEGED, "group": UNPRIVILEGED, "extra_groups": []}
        os.chown(home, UNPRIVILEGED, UNPRIVILEGED)
    done = subprocess.run(
        [bare, "-I", DRIVER],
        input=json.dumps(lines),
        capture_output=True,
        text=True,
        timeout=300,
        cwd=home,
        env={"HOME": str(home), "PATH": str(home / "empty"), "TMPDIR": str(home)},
        **identity,
    )
    assert done.returncode == 0, done.stderr
    return [(code, text) for code, text in json.loads(done.stdout)]


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A home of a user who is not root; below it there is a deployment that was never started."""
    with open_directory() as directory:
        yield directory / "home"


@pytest.fixture(scope="module")
def outcomes(bare: Path, home: Path) -> dict[str, tuple[int, str]]:
    """command line -> outcome, where nothing is deployed and where `init` has run."""
    lines = {name: [*name.split(), *NEEDED.get(name, ())] for name in COMMANDS}
    lines["init --root"] = ["init", "--root", "made"]
    for name, has_root in COMMANDS.items():
        if has_root and name not in LONG:
            lines[f"{name} --root"] = [*lines[name], "--root", "made"]
    lines["uninstall --root"] = lines.pop("uninstall --root")  # the last one
    return dict(zip(lines, run(bare, list(lines.values()), home), strict=True))


def test_nothing_is_an_internal_error(outcomes: dict[str, tuple[int, str]]) -> None:
    assert len(outcomes) > 60
    bad = {
        name: text
        for name, (code, text) in outcomes.items()
        if "internal error" in text or "Traceback" in text or code not in (0, 1, 2, 4, 78)
    }
    assert bad == {}


def test_who_fails_says_what_fixes_it(outcomes: dict[str, tuple[int, str]]) -> None:
    silent = [
        name
        for name, (code, text) in outcomes.items()
        if code
        and name.partition(" --")[0] not in ("check", "status", "top")
        and "fix " not in text
    ]
    assert silent == []


def test_what_needs_nothing_works(outcomes: dict[str, tuple[int, str]]) -> None:
    failed = {
        name: text
        for name, (code, text) in outcomes.items()
        if code and f"{name} ".startswith(PRINTING)
    }
    assert failed == {}


def test_what_needs_the_extra_names_it(outcomes: dict[str, tuple[int, str]]) -> None:
    for name in COMMANDS:
        if name.startswith("fleet ") and name != "fleet collections":
            code, text = outcomes[name]
            assert (code, "'optictl[fleet]'" in text) == (1, True), name


def test_root_and_systemd_are_named_where_they_are_missing(
    outcomes: dict[str, tuple[int, str]],
) -> None:
    assert "no permission for /" in outcomes["init"][1]
    assert "systemd" in outcomes["start --root"][1]


def test_wheels_come_without_a_pip_in_the_environment(bare: Path, home: Path) -> None:
    """uv provides a pip for the moment. The wheels are those that the environment was made of."""
    assert subprocess.run([bare, "-c", "import pip"], capture_output=True).returncode == 1
    program = (
        "import sys; from pathlib import Path; from optictl.host import wheels;"
        "from optictl.releases import wheelhouse; from optictl.cli.wheelhouse import platform_of;"
        "target = platform_of('x86_64', '3.11', '2.34');"
        "pins = [p for p in wheelhouse.Request(target, ('0.3.12',), 'proxy').own()"
        " if p.name in ('typer', 'idna')];"
        "print(*wheelhouse.complete(Path(sys.argv[1]), target, pins, None, lambda text: None))"
    )
    home.mkdir(exist_ok=True)
    done = subprocess.run(
        [bare, "-c", program, str(home.parent)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONSAFEPATH": "1"},
    )
    assert done.returncode == 0, done.stderr
    names = sorted(Path(word).name.partition("-")[0] for word in done.stdout.split())
    assert names == ["idna", "typer"]


def test_uvx_runs_it_from_a_checkout() -> None:
    command = [find_uv_bin(), "tool", "run", "-q", "--python", sys.executable, "--from", str(ROOT)]
    done = subprocess.run([*command, "optictl", "--version"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"optictl {optictl.__version__}\ncommit  ")
