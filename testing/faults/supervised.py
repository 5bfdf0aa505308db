"""Faults of the units, the release and the process."""

from __future__ import annotations

import socket

from testing.faults.bench import HOME, OPT, SOCKET, UNIT, Bench
from testing.faults.fault import (
    CURRENT,
    RESTART,
    SERVICE_FILE,
    SITE_PACKAGES,
    SOCKET_FILE,
    Fault,
    Step,
    drop_in,
    sh,
    until,
)

#: systemd's own socket relay, and the copies of the secrets that the running service has.
PROXYD = "/usr/lib/systemd/systemd-socket-proxyd"
CREDENTIALS = f"/run/credentials/{UNIT}"

# unit


def _relay_without_its_program(b: Bench) -> None:
    """It is not there when the relay is started by the next connection."""
    b.sh(f"mv {PROXYD} {PROXYD}.off && systemctl stop optillm-proxy-upstream.service")
    b.sh("curl -s -m 2 --unix-socket /run/optillm-proxy-upstream/socket http://relay/ || true")
    until(b, "systemctl show optillm-proxy-upstream.service -p SubState | grep -q auto-restart")


def _timer_that_does_not_run(b: Bench) -> None:
    b.configure("monitoring: {timer: true}\n")
    b.optictl("install", "--yes", "--no-smoke")
    b.sh("systemctl stop optillm-proxy-check.timer")


def _no_timer(b: Bench) -> None:
    b.configure()
    b.optictl("install", "--yes", "--no-smoke")


UNIT_FAULTS = [
    Fault(
        "unit",
        "edited",
        "unit.matches",
        sh(f"sed -i s/WatchdogSec=15/WatchdogSec=1500/ {SERVICE_FILE} && systemctl daemon-reload"),
    ),
    Fault(
        "unit",
        "the socket's unit edited",
        "unit.matches",
        sh(f"sed -i s/IPAddressDeny=any// {SOCKET_FILE} && systemctl daemon-reload"),
    ),
    Fault(
        "unit",
        "older than the release",
        "unit.matches",
        sh(
            f"sed -i 's/ --max-body-bytes [0-9]*//; /CPUWeight/d' {SERVICE_FILE}"
            f" && systemctl daemon-reload && systemctl restart {UNIT}"
        ),
    ),
    Fault("unit", "gone", "unit.installed", sh(f"rm {SERVICE_FILE} && systemctl daemon-reload")),
    Fault("unit", "masked", "unit.installed", sh(f"rm {SERVICE_FILE} && systemctl mask -q {UNIT}")),
    Fault(
        "unit",
        "a drop-in that weakens the sandbox",
        "unit.no-weakening-dropin",
        drop_in("NoNewPrivileges=no"),
    ),
    Fault(
        "unit",
        "runs as root",
        "unit.no-weakening-dropin",
        drop_in("DynamicUser=no", "User=root", then=f"{RESTART}; sleep 2"),
    ),
    Fault(
        "unit",
        "a drop-in with another command",
        "unit.no-weakening-dropin",
        drop_in("ExecStart=", "ExecStart=/bin/sleep 600", then=f"{RESTART}; sleep 1"),
    ),
    Fault(
        "unit", "daemon-reload forgotten", "unit.reloaded", sh(f"sleep 0.1; touch {SERVICE_FILE}")
    ),
    Fault("unit", "the service is not enabled", "unit.enabled", sh(f"systemctl disable -q {UNIT}")),
    Fault(
        "unit", "the socket is not enabled", "unit.enabled", sh(f"systemctl disable -q {SOCKET}")
    ),
    Fault("unit", "stopped", "socket.owner", sh(f"systemctl stop {SOCKET} {UNIT}")),
    Fault(
        "unit",
        "the check timer does not run",
        "timer.active",
        _timer_that_does_not_run,
        after=_no_timer,
    ),
    Fault(
        "unit",
        "the relay's socket is gone",
        "relay.active",
        sh("rm /run/optillm-proxy-upstream/socket"),
        # a connection that is still open may serve one more request
        unsteady=("curl /v1/models", "LiteLLM /health"),
    ),
    Fault(
        "unit",
        "the relay's program is gone",
        "relay.active",
        _relay_without_its_program,
        outside=sh(f"mv {PROXYD}.off {PROXYD}"),
        says="systemd-socket-proxyd",
        typed="optictl install",
        # it starts again by itself once its program is back
        unsteady=("curl /v1/models", "LiteLLM /health"),
    ),
    Fault(
        "unit",
        "the service's copy of the proxy key is world-readable",
        "credential.mode",
        sh(
            f"mount -o remount,rw {CREDENTIALS}; chmod 755 {CREDENTIALS} && "
            f"chmod o+r {CREDENTIALS}/proxy_key; "
            f"mount -o remount,ro {CREDENTIALS}; true"
        ),
    ),
]


# release


def spare(words: str) -> Step:
    """Break the active release. Another one of the same id is there, so none is built."""
    return sh(f"cd $(readlink -f {CURRENT}) && cp -al . ../spare.$$ && {words}")


def _other_release(words: str = "true", restart: bool = False) -> Step:
    """A copy of the release is activated."""
    then = f"systemctl restart {UNIT}" if restart else "true"
    return sh(
        f"cd {OPT}/releases && cp -al $(readlink -f {CURRENT}) other.$$ && {{ cd other.$$; "
        f"{words}; }}"
        f" && ln -sfn releases/other.$$ {CURRENT} && {then}"
    )


RELEASE = [
    Fault(
        "release",
        "wrong version",
        "release.pinned",
        _other_release(
            'sed -i \'s/"optillm": "0.3.12"/"optillm": "0.3.13"/; s/"id": "/&x/\' release.json',
            restart=True,
        ),
    ),
    Fault(
        "release",
        "a file of a package changed",
        "release.pinned",
        spare("sed -i '1a # edited' .venv/lib/python3*/site-packages/optillm/moa.py"),
    ),
    Fault(
        "release",
        "a package is missing",
        "release.pinned",
        sh(f"rm -r {SITE_PACKAGES}/flask-*.dist-info"),
    ),
    Fault(
        "release",
        "a package was added",
        "release.pinned",
        spare(
            "cd .venv/lib/python3*/site-packages && mkdir extra-1.0.dist-info && "
            "touch extra-1.0.dist-info/RECORD"
        ),
    ),
    Fault(
        "release",
        "the guard changed",
        "release.pinned",
        spare("sed -i '1a # edited' guard/app.py"),
    ),
    Fault(
        "release",
        "no bytecode",
        "release.bytecode",
        sh(f"rm -r {SITE_PACKAGES}/optillm/__pycache__"),
    ),
    Fault(
        "release",
        "its interpreter is gone",
        "release.interpreter",
        spare("ln -sfn /usr/bin/python-that-was-removed .venv/bin/python"),
    ),
    Fault(
        "release",
        "its interpreter is root's alone",
        "release.interpreter",
        spare(
            "cp --remove-destination $(readlink -f .venv/bin/python) .venv/bin/python && "
            "chmod 0700 .venv/bin/python"
        ),
    ),
    Fault("release", "no active release", "release.in-force", sh(f"rm {CURRENT}")),
    Fault(
        "release",
        "disk full",
        "host.disk",
        sh(
            f"cp -a {HOME} /run/home && mount -t tmpfs -o size=24M,mode=0755 tmpfs {HOME}"
            f" && cp -a /run/home/. {HOME} && (dd if=/dev/zero of={HOME}/filling bs=64k; true)"
        ),
        outside=sh(f"rm {HOME}/filling"),
        says="free space",
        typed="",
        after=sh(f"umount {HOME}; rm -r /run/home"),
    ),
]


# process


def _many_restarts(b: Bench) -> None:
    for _ in range(4):
        pid = b.machine.show(UNIT, "MainPID")
        b.sh(f"systemctl kill --signal=KILL {UNIT}")
        until(b, f"p=$(systemctl show {UNIT} -p MainPID --value); [ $p != 0 ] && [ $p != {pid} ]")
    until(b, f"systemctl is-active -q {UNIT}")


def _few_descriptors(b: Bench) -> None:
    """Clients keep their connections, and the limit of the running worker is lowered."""
    for _ in range(55):
        client = socket.create_connection(("127.0.0.1", b.port))
        # without a request, the service would close the connection soon
        client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        client.recv(4096)
        b.held.append(client)
    used = int(b.sh(f"ls /proc/{b.worker}/fd | wc -l"))
    b.sh(f"prlimit --pid {b.worker} --nofile={used + 8}")


PROCESS = [
    Fault(
        "process",
        "four crashes in a row",
        "service.restarts",
        _many_restarts,
        typed="optictl restart",
    ),
    Fault("process", "hung", "health.alive", sh(f"systemctl kill --signal=STOP {UNIT}")),
    Fault(
        "process",
        "file descriptors nearly used up",
        "process.descriptors",
        _few_descriptors,
        after=lambda b: b.let_go(),
        # a few are left, and the next request may get one of them
        unsteady=("curl /health", "curl /v1/models", "LiteLLM /health"),
    ),
    Fault(
        "process",
        "memory near its limit",
        "process.memory",
        lambda b: drop_in(f"MemoryMax={b.memory}K")(b),
    ),
    Fault("process", "an older release still runs", "service.current-release", _other_release()),
]
