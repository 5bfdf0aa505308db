"""Obstacles to an installation are named before a build, with a command that works when pasted.

An ordinary user with sudo has optictl in a private place, as `uv tool install` leaves it; sudo
passes on none of the user's variables and looks for programs in its own directories.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from testing.machine import Machine
from testing.support import PROXY_KEY, UPSTREAM_KEY, free_port

NAME, USER = "preflight", "ada"
ETC, ENV = f"/etc/{NAME}", f"/etc/{NAME}/env"
HOLDER = "holder.service"


@dataclass
class Desk:
    """The user's terminal on the machine."""

    machine: Machine
    program: Path
    port: int

    def type(self, command: str) -> subprocess.CompletedProcess[str]:
        """What a shell of the user does with a line, in a clean environment."""
        clean = ("env", "-i", "PATH=/usr/bin:/bin", f"HOME=/home/{USER}", "LANG=C.UTF-8")
        shell = ("setpriv", "--reuid", USER, "--regid", USER, "--init-groups")
        return self.machine.run(*shell, *clean, "sh", "-c", command, check=False)

    def plan(self, *options: str) -> tuple[int, dict[str, dict[str, Any]]]:
        """Exit code of `install --dry-run`, and the problems that it told."""
        words = (
            f"sudo {self.program} install --dry-run --output json --name {NAME} {' '.join(options)}"
        )
        done = self.type(words)
        assert PROXY_KEY not in done.stdout + done.stderr
        data = json.loads(done.stdout)
        assert data["status"] == ("ok" if done.returncode == 0 else "failed"), done.stderr
        return done.returncode, {
            p["id"].removeprefix("preflight."): p for p in data.get("problems", [])
        }


@pytest.fixture(scope="module")
def desk(machine: Machine, program: Path) -> Iterator[Desk]:
    machine.run("useradd", "--create-home", USER)
    machine.write(f"/etc/sudoers.d/{USER}", f"{USER} ALL=(ALL) NOPASSWD: ALL\n", 0o440)
    desk = Desk(machine, program, free_port())
    yield desk
    machine.run("rm", "-rf", ETC, f"/etc/systemd/system/{HOLDER}")


@pytest.fixture(autouse=True)
def configured(desk: Desk) -> None:
    machine = desk.machine
    machine.run("mkdir", "-p", ETC)
    machine.write(f"{ETC}/optictl.yaml", f"listen: {{port: {desk.port}}}\n")
    machine.write(ENV, f"OPENAI_API_KEY={UPSTREAM_KEY}\n", 0o600)
    machine.write(f"{ETC}/proxy_key", f"{PROXY_KEY}\n", 0o600)


def _hold_the_port(desk: Desk) -> None:
    python = (
        f"import socket, time; s = socket.create_server(('127.0.0.1', {desk.port})); "
        "time.sleep(1000)"
    )
    unit = (
        f'[Service]\nExecStart=/usr/bin/python3 -c "{python}"\n[Install]\n'
        "WantedBy=multi-user.target\n"
    )
    desk.machine.write(f"/etc/systemd/system/{HOLDER}", unit)
    desk.machine.run("systemctl", "enable", "--now", "--quiet", HOLDER)
    until = f"until ss -ltn | grep -q 127.0.0.1:{desk.port}; do sleep 0.1; done"
    desk.machine.run("sh", "-c", until)


def _write(path: str, text: str) -> Callable[[Desk], None]:
    def write(desk: Desk) -> None:
        desk.machine.run("mkdir", "-p", str(Path(path).parent))
        desk.machine.write(path, text, 0o600)

    return write


def _run(command: str) -> Callable[[Desk], None]:
    def run(desk: Desk) -> None:
        desk.machine.run("sh", "-c", command)

    return run


#: problem -> what brings it about, and a part of what is told
CAUSES: dict[str, tuple[str, Callable[[Desk], None], str]] = {
    "a unit on the port": ("port", _hold_the_port, HOLDER),
    "a forbidden variable": (
        "variable",
        _write(ENV, f"OPENAI_API_KEY={UPSTREAM_KEY}\nOPTILLM_API_KEY=x\n"),
        "OPTILLM_API_KEY",
    ),
    "a variable of systemd's": (
        "variable",
        _run("systemctl set-environment HTTP_PROXY=http://p:1"),
        "HTTP_PROXY",
    ),
    "a weak key": ("proxy-key", _write(f"{ETC}/proxy_key", "short\n"), "is shorter than"),
    "a drop-in": (
        "drop-in",
        _write(f"/etc/systemd/system/{NAME}.service.d/x.conf", "[Service]\nUser=root\n"),
        "sets User=",
    ),
    "a closed directory": (
        "directory",
        _run(f"mkdir -p -m 700 /opt/{NAME} && chmod 700 /opt/{NAME}"),
        f"cannot enter /opt/{NAME}",
    ),
    "noexec": (
        "mount",
        _run(
            f"mkdir -p /opt/{NAME} && mount -t tmpfs -o noexec,size=1G,mode=755 tmpfs /opt/{NAME}"
        ),
        "mounted noexec",
    ),
    "read-only": (
        "mount",
        _run(f"mkdir -p /opt/{NAME} && mount -t tmpfs -o ro,size=1G,mode=755 tmpfs /opt/{NAME}"),
        "mounted read-only",
    ),
}


@pytest.mark.parametrize("cause", CAUSES)
def test_the_remedy_works_when_it_is_pasted(desk: Desk, cause: str) -> None:
    id, bring_about, words = CAUSES[cause]
    bring_about(desk)
    try:
        code, found = desk.plan()
        assert code == 1
        assert set(found) == {id}
        assert words in found[id]["found"]
        # the other choice, and what a person has to do elsewhere, stand behind it
        command = found[id]["remedy"].partition("; or ")[0].partition(" makes a new one")[0]
        assert command.startswith("sudo ")
        done = desk.type(command)
        assert done.returncode == 0, done.stderr
        assert desk.plan() == (0, {})
    finally:
        desk.machine.run("systemctl", "unset-environment", "HTTP_PROXY")
        desk.machine.run("sh", "-c", f"umount /opt/{NAME} 2>/dev/null; rm -rf /opt/{NAME}")
        desk.machine.run("rm", "-rf", f"/etc/systemd/system/{NAME}.service.d")


def test_everything_is_told_at_once_and_nothing_is_built(desk: Desk) -> None:
    _write(ENV, "OPTILLM_API_KEY=x\nALL_PROXY=y\n")(desk)
    _write(f"{ETC}/proxy_key", "sk-0123456789-0123456789\n")(desk)
    _run(f"mkdir -p /opt/{NAME} && mount -t tmpfs -o size=50M,mode=700 tmpfs /opt/{NAME}")(desk)
    try:
        done = desk.type(f"sudo {desk.program} install --yes --name {NAME} --output json")
        problems = json.loads(done.stdout)["error"]["problems"]
        assert done.returncode == 1
        ids = [problem["id"].removeprefix("preflight.") for problem in problems]
        assert ids == ["directory", "room", "variable", "variable", "upstream-key", "proxy-key"]
        assert desk.machine.run("ls", "-A", f"/opt/{NAME}").stdout == ""
        spoken = desk.type(f"sudo {desk.program} install --yes --name {NAME}")
        assert spoken.returncode == 1
        assert "nothing was changed: fix the 6 problems above first" in spoken.stderr
    finally:
        desk.machine.run("sh", "-c", f"umount /opt/{NAME}; rm -rf /opt/{NAME}")


def test_an_interpreter_that_does_not_fit_is_told_by_dry_run(desk: Desk) -> None:
    desk.machine.write("/opt/no-python", "#!/bin/sh\nexit 1\n", 0o755)
    code, found = desk.plan("--python", "/opt/no-python")
    assert code == 1
    assert set(found) == {"interpreter"}
    assert "/opt/no-python" in found["interpreter"]["found"]


def test_links_to_the_directories_are_followed(desk: Desk) -> None:
    """As on ostree systems, where /opt is a link to var/opt: units name what systemd can bind."""
    machine = desk.machine
    machine.run("sh", "-c", f"mkdir -p /var/opt-{NAME} && ln -sfn /var/opt-{NAME} /opt/{NAME}")
    try:
        done = desk.type(f"sudo {desk.program} render-unit --name {NAME}")
        assert f"RootDirectory=/var/opt-{NAME}/root" in done.stdout
        assert f"/opt/{NAME}/" not in done.stdout
        words = ("install", "--yes", "--no-smoke", "--name", NAME, "--output", "json")
        # not through sudo: uv may need this machine's variables to reach its index
        installed = machine.run(desk.program, *words, check=False)
        assert json.loads(installed.stdout)["results"], installed.stdout + installed.stderr
        results = {r["id"]: r["status"] for r in json.loads(installed.stdout)["results"]}
        assert (
            results["service.active"]
            == results["health.alive"]
            == results["unit.matches"]
            == "pass"
        )
    finally:
        desk.type(f"sudo {desk.program} uninstall --yes --name {NAME}")
        machine.run("sh", "-c", f"rm -rf /var/opt-{NAME} /opt/{NAME}")


def test_without_permission_the_command_is_spelled_whole(desk: Desk) -> None:
    done = desk.type(f"{desk.program} init --name somewhere")
    assert done.returncode == 1
    assert f"sudo {desk.program} init --name somewhere" in done.stderr
    assert desk.type(f"sudo {desk.program} init --name somewhere").returncode == 0
    desk.machine.run("rm", "-r", "/etc/somewhere")
