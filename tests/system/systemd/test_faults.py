"""Faults around a deployment: the right state, the right words, and work goes on after the fix."""

from __future__ import annotations

import json
import socket
import subprocess

import pytest

from testing.host import ETC, HANG, OPT, Host
from testing.support import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.root]

UNIT, SOCKET = "optillm-proxy.service", "optillm-proxy.socket"


@pytest.fixture(scope="module", autouse=True)
def installed(host: Host) -> None:
    """A running deployment, whatever the module before left."""
    host.renew()


def _failed(host: Host, *arguments: str) -> dict[str, dict[str, str]]:
    """The checks that fail, by id."""
    out = host.optictl("check", *arguments, "--output", "json", check=False).stdout
    return {r["id"]: r for r in json.loads(out)["results"] if r["status"] == "fail"}


def _words(result: subprocess.CompletedProcess[str]) -> str:
    """What a command said, however the terminal's width broke it."""
    return " ".join((result.stdout + result.stderr).split())


def _status(host: Host) -> str:
    result = host.optictl("status", check=False)
    assert result.returncode == 1
    return _words(result)


def test_a_port_that_another_program_holds(host: Host) -> None:
    host.optictl("stop")
    try:
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.bind(("127.0.0.1", host.port))
            other.listen()
            started = host.optictl("start", check=False)
            assert started.returncode == 1
            assert f"another program listens on port {host.port}" in _words(started)
            assert host.machine.show(UNIT, "ActiveState") == "inactive"
            said = _status(host)
            assert f"another program listens on port {host.port}" in said
            # what the service said in its last life is no news
            assert "in flight" not in said
            # it would start the service, which does not run: told before anything is done
            installed = host.optictl("install", "--yes", check=False)
            assert installed.returncode == 1
            assert f"listens on port {host.port}" in _words(installed)
            assert "nothing was changed" in _words(installed)
    finally:
        host.optictl("install", "--yes")
    assert host.ask().status_code == 200


def test_an_interpreter_that_cannot_be_executed(host: Host) -> None:
    """A private copy in the place of the link: only root may execute it."""
    python = f"{OPT}/current/.venv/bin/python"
    host.machine.run(
        "sh",
        "-c",
        f"mv {python} {python}.kept && cp /usr/bin/python3 {python} && chmod 0700 {python}",
    )
    try:
        host.machine.run("systemctl", "kill", "--signal=KILL", UNIT)
        wait_until(lambda: host.machine.show(UNIT, "ExecMainStatus") == "203", 30, pause=0.2)
        wait_until(lambda: "interpreter cannot be executed" in _status(host), 30, pause=0.2)
        # whoever connects waits
        assert host.machine.show(SOCKET, "ActiveState") == "active"
    finally:
        host.machine.run("mv", f"{python}.kept", python)
    assert host.ask(timeout=60).status_code == 200


@pytest.mark.parametrize(
    ("name", "words"), [("proxy_key", "proxy_key or env is missing"), ("env", "environment files")]
)
def test_a_secret_that_is_missing(host: Host, name: str, words: str) -> None:
    host.machine.run("mv", f"{ETC}/{name}", f"{ETC}/{name}.kept")
    try:
        host.machine.run("systemctl", "kill", "--signal=KILL", UNIT)
        wait_until(
            lambda: (
                host.machine.show(UNIT, "ActiveState") == "activating"
                and host.machine.show(UNIT, "NRestarts") != "0"
            ),
            30,
            pause=0.2,
        )
        # it is started again every second: for a moment it is starting and has not failed yet
        wait_until(lambda: words in _status(host), 30, pause=0.2)
        assert host.machine.show(SOCKET, "ActiveState") == "active"
    finally:
        host.machine.run("mv", f"{ETC}/{name}.kept", f"{ETC}/{name}")
    assert host.ask(timeout=60).status_code == 200
    assert host.optictl("status").returncode == 0


def test_a_full_disk_leaves_what_runs(host: Host) -> None:
    """The deployment on a small separate disk, which fills up before another release is built."""
    host.optictl("stop")
    host.machine.run(
        "sh",
        "-c",
        (
            f"mkdir {OPT}.disk && mount -t tmpfs -o size=1000M,nr_inodes=40000,mode=0755 tmpfs "
            f"{OPT}.disk"
        ),
    )
    host.machine.run("sh", "-c", f"cp -a {OPT}/. {OPT}.disk && mount --bind {OPT}.disk {OPT}")
    try:
        host.optictl("start")
        release = host.machine.run("readlink", f"{OPT}/current").stdout
        pid = host.machine.show(UNIT, "MainPID")
        host.machine.run("sh", "-c", f"dd if=/dev/zero of={OPT}/filling bs=1M", check=False)
        host.machine.write(f"{ETC}/hang.py", HANG)
        host.configure("plugins: [hang.py]\n")
        # no byte is free: told before the build; no file is free, which only the build finds out
        full = {
            "true": ("MB are free at", "nothing was changed"),
            f"rm {OPT}/filling && mkdir {OPT}/filling && cd {OPT}/filling && "
            "for n in $(seq 60); do seq -f $n-%g 1000 | xargs touch 2>/dev/null; done; rm -f 1-*": (
                "os error 28",
            ),
        }
        for fill, words in full.items():
            host.machine.run("sh", "-c", fill, check=False)
            failed = host.optictl("install", "--yes", check=False)
            assert failed.returncode == 1
            said = _words(failed)
            assert all(word in said for word in words), said
            assert host.machine.run("readlink", f"{OPT}/current").stdout == release
            assert host.machine.show(UNIT, "MainPID") == pid
            assert host.ask().status_code == 200
        host.machine.run("rm", "-r", f"{OPT}/filling")
        host.optictl("install", "--yes")
        assert host.machine.run("readlink", f"{OPT}/current").stdout != release
        assert host.ask().status_code == 200
    finally:
        host.optictl("stop", check=False)
        host.machine.run("umount", "--lazy", OPT)
        # not built again by who has this plugin next
        host.machine.run(
            "sh", "-c", f"cp -a --no-clobber {OPT}.disk/releases/. {OPT}/releases", check=False
        )
        host.machine.run("umount", "--lazy", f"{OPT}.disk")
        host.machine.run("rm", "-rf", f"{OPT}.disk", f"{ETC}/hang.py")
        host.configure()
        host.optictl("install", "--yes")
