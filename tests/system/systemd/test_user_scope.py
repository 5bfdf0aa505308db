"""The same life for one user, under that user's own manager and without root."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator

import httpx
import pytest

from testing.host import OPT, Host
from testing.support import PROXY_KEY, UPSTREAM_KEY, free_port

pytestmark = [pytest.mark.slow, pytest.mark.root]

NAME = "tester"
HOME = f"/home/{NAME}"


class User:
    """One user of the machine, with a manager that runs without a login."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.port = free_port()
        self.uid = host.machine.run("id", "-u", NAME).stdout.strip()

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        runtime = f"/run/user/{self.uid}"
        variables = [
            f"HOME={HOME}",
            f"XDG_RUNTIME_DIR={runtime}",
            f"DBUS_SESSION_BUS_ADDRESS=unix:path={runtime}/bus",
        ]
        words = [
            "runuser",
            "-u",
            NAME,
            "--",
            "env",
            "-C",
            HOME,
            *variables,
            "PATH=/usr/bin:/bin",
            *command,
        ]
        return self.host.machine.run(*words, check=check)

    def optictl(
        self, name: str, *arguments: str, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        return self.run(str(self.host.program), name, "--user", *arguments, check=check)

    def write(self, path: str, text: str, mode: int) -> None:
        self.host.machine.write(path, text, mode)
        self.host.machine.run("chown", f"{NAME}:", path)


@pytest.fixture(scope="module")
def user(host: Host) -> Iterator[User]:
    host.machine.run("useradd", "--create-home", "--shell", "/bin/sh", NAME)
    try:
        host.machine.run("loginctl", "enable-linger", NAME)
        user = User(host)
        deadline = time.monotonic() + 30
        while user.run(
            "systemctl", "--user", "is-system-running", check=False
        ).stdout.strip() not in ("running", "degraded"):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield user
    finally:
        host.machine.run("loginctl", "disable-linger", NAME, check=False)
        host.machine.run("loginctl", "terminate-user", NAME, check=False)
        host.machine.run(
            "systemctl",
            "stop",
            f"user@{host.machine.run('id', '-u', NAME).stdout.strip()}.service",
            check=False,
        )
        host.machine.run("userdel", "--remove", NAME, check=False)


def _statuses(user: User, *command: str) -> dict[str, str]:
    out = user.optictl(*command, "--output", "json", check=False).stdout
    return {r["id"]: f"{r['status']}: {r['found']}" for r in json.loads(out)["results"]}


def test_a_users_own_deployment(user: User) -> None:
    etc = f"{HOME}/.config/optillm-proxy"
    user.run("mkdir", "-p", etc)
    config = (
        f"listen: {{port: {user.port}}}\nupstream: {{base_url: '{user.host.upstream.base_url}'}}\n"
        "monitoring: {timer: true}\n"
    )
    user.write(f"{etc}/optictl.yaml", config, 0o644)
    user.write(f"{etc}/env", f"OPENAI_API_KEY={UPSTREAM_KEY}\n", 0o600)
    user.write(f"{etc}/proxy_key", f"{PROXY_KEY}\n", 0o600)
    before = set(
        user.run(
            "find", HOME, "-path", f"{HOME}/.cache", "-prune", "-o", "-type", "f", "-print"
        ).stdout.split()
    )

    # built already: what a user's own build is like is seen in tests/integration/install
    releases = f"{HOME}/.local/share/optillm-proxy/releases"
    user.run("mkdir", "-p", releases)
    user.host.machine.run(
        "sh", "-c", f"cp -a $(readlink -f {OPT}/current) {releases} && chown -R {NAME}: {releases}"
    )
    user.optictl("install", "--yes")
    state = user.run(
        "systemctl", "--user", "is-active", "optillm-proxy.service", "optillm-proxy.socket"
    ).stdout
    assert state.split() == ["active"] * 2
    pid = user.run(
        "systemctl", "--user", "show", "optillm-proxy", "--property=MainPID", "--value"
    ).stdout.strip()
    assert user.host.machine.run("stat", "--format=%u", f"/proc/{pid}").stdout.strip() == user.uid
    assert {
        id: what for id, what in _statuses(user, "check").items() if what.startswith("fail")
    } == {}
    assert (
        user.run("systemctl", "--user", "is-active", "optillm-proxy-check.timer").stdout.strip()
        == "active"
    )
    user.run(
        "systemctl", "--user", "start", "optillm-proxy-check.service"
    )  # a round of it is as good as the check was
    smoked = _statuses(user, "smoke", "--all")
    assert len(smoked) == 4
    assert all(what.startswith("pass") for what in smoked.values()), smoked

    # its own service holds the port, which is nothing in the way of another installation
    user.write(f"{etc}/optictl.yaml", config + "timeouts: {drain: 7}\n", 0o644)
    user.optictl("install", "--yes", "--no-smoke")
    assert "No changes." in user.optictl("install", "--yes").stdout

    user.optictl("restart")
    assert httpx.get(f"http://127.0.0.1:{user.port}/health", timeout=30).status_code == 200
    user.optictl("status")
    assert "serving" in user.optictl("logs").stdout

    user.optictl("uninstall", "--yes")
    after = set(
        user.run(
            "find", HOME, "-path", f"{HOME}/.cache", "-prune", "-o", "-type", "f", "-print"
        ).stdout.split()
    )
    assert after == before
    assert (
        user.run(
            "systemctl", "--user", "list-units", "--all", "--plain", "--no-legend", "optillm*"
        ).stdout.strip()
        == ""
    )
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{user.port}/health", timeout=5)
