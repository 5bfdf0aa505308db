"""`install` over a hand-made service in use: one transaction, and no client waits for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from optictl.proof.standin import StandIn
from testing.handmade import HAND_KEY, HandMadeService, start_handmade
from testing.host import ETC, OPT
from testing.machine import Machine
from testing.support import PROXY_KEY, UPSTREAM_KEY

NAME = "takeover"
UNIT, SOCKET = f"{NAME}.service", f"{NAME}.socket"
PLACE = f"/etc/{NAME}"
#: Seconds between two probes, and the longest that one may have to wait for an answer.
PAUSE, PATIENCE = 0.1, 1.0


@dataclass
class Probe:
    """GET /health every 100 ms, a new connection each. `gaps` are seconds from answer to answer."""

    port: int
    answered: list[float] = field(default_factory=list)
    refused: int = 0

    @property
    def longest(self) -> float:
        return max(b - a for a, b in zip(self.answered, self.answered[1:], strict=False))


@contextmanager
def probing(port: int) -> Iterator[Probe]:
    probe, ended = Probe(port), threading.Event()

    def ask() -> None:
        while not ended.wait(PAUSE):
            try:
                if httpx.get(f"http://127.0.0.1:{port}/health", timeout=20).status_code == 200:
                    probe.answered.append(time.monotonic())
            except httpx.HTTPError:
                probe.refused += 1

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    try:
        yield probe
    finally:
        ended.set()
        thread.join(30)


@dataclass
class Bed:
    """A machine with a hand-made service on it, and optictl beside it."""

    machine: Machine
    program: Path
    upstream: StandIn
    service: HandMadeService

    def optictl(self, command: str, *options: str) -> tuple[int, str]:
        """Exit code and all that was said. No key is ever among it."""
        done = self.machine.run(self.program, command, "--name", NAME, *options, check=False)
        said = " ".join((done.stdout + done.stderr).split())  # wherever lines were broken
        for secret in (self.service.key, HAND_KEY, UPSTREAM_KEY, PROXY_KEY):
            assert not secret or secret not in said
        return done.returncode, said

    def install(self, *options: str) -> tuple[int, str]:
        return self.optictl("install", "--yes", "--no-smoke", *options)

    @property
    def state(self) -> tuple[str, str, str]:
        """What must be as it was: running, started at boot, and its text."""
        show = self.machine.show
        return show(UNIT, "ActiveState"), show(UNIT, "UnitFileState"), self.service.text

    def clean(self) -> bool:
        """Whether nothing of optictl's runs or is enabled."""
        listed = self.machine.run(
            "systemctl", "list-units", "--all", "--plain", "--no-legend", f"{NAME}*"
        ).stdout
        units = [line.split()[0] for line in listed.splitlines()]
        enabled = self.machine.show(SOCKET, "UnitFileState")
        left = self.machine.run("sh", "-c", f"ls /run/systemd/system | grep {NAME} || true").stdout
        return units == [UNIT] and enabled != "enabled" and left == ""


@pytest.fixture
def bed(machine: Machine, program: Path, locked_venv: Path) -> Iterator[Bed]:
    """A hand-made service that runs, with optictl's files as `init` would have written them."""
    with StandIn(key=UPSTREAM_KEY).running() as upstream:
        machine.run("mkdir", "-p", PLACE)
        service = start_handmade(machine, upstream, locked_venv, name=NAME, env_path=f"{PLACE}/env")
        machine.write(
            f"{PLACE}/optictl.yaml",
            (
                f"listen: {{port: {service.port}}}\nupstream: {{base_url: '{upstream.base_url}'}}\n"
                "timeouts: {drain: 10}\n"
            ),
        )
        machine.write(f"{PLACE}/proxy_key", f"{HAND_KEY}\n", 0o600)
        bed = Bed(machine, program, upstream, service)
        try:
            yield bed
        finally:
            # what was built is kept for the next test: a release is the same for all of them
            machine.run(
                "sh", "-c", f"mkdir -p /opt/kept && cp -an /opt/{NAME}/releases /opt/kept/ || true"
            )
            bed.optictl("uninstall", "--yes", "--purge", "--force")
            service.remove()
            drop_ins = f"/etc/systemd/system/{NAME}*.d /usr/lib/systemd/system/{NAME}*.d"
            machine.run("sh", "-c", f"rm -rf {PLACE} /opt/{NAME} {drop_ins}; mkdir -p /opt/{NAME}")
            machine.run(
                "sh", "-c", f"mv /opt/kept/releases /opt/{NAME}/releases; systemctl daemon-reload"
            )


@pytest.mark.quiet
def test_the_old_service_answers_until_the_new_one_does(bed: Bed) -> None:
    """And the key that LiteLLM has goes on being the key."""
    code, said = bed.install("--dry-run")
    assert code == 0
    assert "--force is needed" in said
    assert f"127.0.0.1:{bed.service.port}" in said
    code, said = bed.install()
    assert code == 1
    assert "use --force" in said
    before = bed.state
    assert before[:2] == ("active", "enabled")
    with probing(bed.service.port) as probe:
        code, said = bed.install("--force")
        time.sleep(1)
    assert code == 0, said
    assert probe.longest <= PATIENCE, f"{probe.longest:.2f} s, {probe.refused} refused"
    answer = bed.service.ask()
    assert answer.status_code == 200
    assert answer.headers["x-optillm-strategy"] == "bon"
    assert (
        bed.machine.show(SOCKET, "UnitFileState")
        == bed.machine.show(UNIT, "UnitFileState")
        == "enabled"
    )
    assert bed.install()[1].startswith("No changes.")
    kept = bed.machine.run(
        "stat", "-c", "%a", f"{PLACE}/before", f"{PLACE}/before/state.json"
    ).stdout.split()
    assert kept == ["700", "600"]
    # and back
    code, said = bed.optictl("uninstall", "--yes")
    assert code == 0
    assert "uninstall --restore" in said
    code, said = bed.optictl("uninstall", "--yes", "--restore")
    assert code == 0, said
    assert "serves again" in said
    assert bed.service.healthy()
    assert bed.state == before
    assert bed.clean()


#: id -> what is wrong with the operator's files, and a word that says so
CAUSES = {
    "a short key": (("proxy_key", "short\n"), "is shorter than"),
    "an sk- key": (("proxy_key", "sk-0123456789-0123456789-abcdefgh\n"), "begins with sk-"),
    "OPTILLM_API_KEY": (
        ("env", f"OPENAI_API_KEY={UPSTREAM_KEY}\nOPTILLM_API_KEY=x\n"),
        "OPTILLM_API_KEY",
    ),
    "a proxy variable": (
        ("env", f"OPENAI_API_KEY={UPSTREAM_KEY}\nhttps_proxy=http://p:1\n"),
        "https_proxy",
    ),
    "no OPENAI_API_KEY": (("env", "# nothing\n"), "OPENAI_API_KEY is not set"),
}


@pytest.mark.parametrize("cause", CAUSES)
def test_what_would_be_refused_is_told_before_anything_is_touched(bed: Bed, cause: str) -> None:
    (name, text), word = CAUSES[cause]
    before = bed.state
    bed.machine.write(f"{PLACE}/{name}", text, 0o600)
    with probing(bed.service.port) as probe:
        code, said = bed.install("--force", "--dry-run")
        assert (code, word in said) == (1, True), said
        code, said = bed.install("--force")
    assert code == 1
    assert word in said
    assert "nothing was changed" in said
    assert bed.state == before
    assert bed.clean()
    assert probe.longest <= PATIENCE
    assert probe.refused == 0


def test_an_old_drop_in_goes_aside_and_comes_back(bed: Bed) -> None:
    drop_in = f"/etc/systemd/system/{UNIT}.d/override.conf"
    text = f"[Service]\nEnvironment=OPTILLM_LOG=debug\nUser={'handy'}\n"
    bed.machine.run("mkdir", "-p", f"/etc/systemd/system/{UNIT}.d")
    bed.machine.write(drop_in, text, 0o640)
    bed.machine.run("systemctl", "daemon-reload")
    code, said = bed.install("--force")
    assert code == 0, said
    assert bed.machine.run("test", "-e", drop_in, check=False).returncode
    assert bed.service.ask().status_code == 200
    assert bed.optictl("uninstall", "--yes", "--restore")[0] == 0
    assert bed.service.healthy()
    assert bed.machine.read(drop_in) == text
    assert bed.machine.run("stat", "-c", "%a", drop_in).stdout.strip() == "640"


def test_a_drop_in_of_a_package_that_overrides_the_start_is_told(bed: Bed) -> None:
    directory = f"/usr/lib/systemd/system/{UNIT}.d"
    bed.machine.run("mkdir", "-p", directory)
    bed.machine.write(f"{directory}/10-vendor.conf", "[Service]\nUser=root\nDynamicUser=no\n")
    bed.machine.run("systemctl", "daemon-reload")
    before = bed.state
    code, said = bed.install("--force")
    assert code == 1
    assert f"{directory}/10-vendor.conf sets User=, DynamicUser=" in said
    assert bed.state == before
    assert bed.clean()


def test_what_the_sandbox_refuses_is_seen_before_the_old_service_is_stopped(bed: Bed) -> None:
    """A drop-in for every service: no preflight knows what it does, the trial does."""
    bed.machine.run("mkdir", "-p", "/etc/systemd/system/service.d")
    before = bed.state
    bed.machine.write(
        "/etc/systemd/system/service.d/proxy.conf",
        "[Service]\nEnvironment=HTTPS_PROXY=http://p:1\n",
    )
    bed.machine.run("systemctl", "daemon-reload")
    try:
        with probing(bed.service.port) as probe:
            code, said = bed.install("--force")
    finally:
        bed.machine.run("sh", "-c", "rm -r /etc/systemd/system/service.d; systemctl daemon-reload")
    assert code == 1
    assert "HTTPS_PROXY is set" in said
    assert bed.state == before
    assert bed.clean()
    assert (probe.refused, probe.longest <= PATIENCE) == (0, True)


def test_a_failure_after_the_switch_brings_the_old_service_back(bed: Bed) -> None:
    """The socket listens elsewhere: everything starts, and nothing answers on the port."""
    directory = f"/etc/systemd/system/{SOCKET}.d"
    before = bed.state
    bed.machine.run("mkdir", "-p", directory)
    bed.machine.write(
        f"{directory}/x.conf", "[Socket]\nListenStream=\nListenStream=127.0.0.1:4999\n"
    )
    code, said = bed.install("--force")
    assert code == 4, said
    assert "is back as it was and serves again" in said
    assert bed.state == before
    assert bed.clean()
    assert bed.service.ask().status_code == 200
    assert bed.machine.show(UNIT, "NRestarts") == "0"


def test_a_first_installation_that_fails_leaves_nothing_that_starts(bed: Bed) -> None:
    bed.machine.run("systemctl", "disable", "--now", UNIT)
    bed.machine.run("sh", "-c", f"rm {bed.service.path}; systemctl daemon-reload")
    directory = f"/etc/systemd/system/{SOCKET}.d"
    bed.machine.run("mkdir", "-p", directory)
    bed.machine.write(
        f"{directory}/x.conf", "[Socket]\nListenStream=\nListenStream=127.0.0.1:4999\n"
    )
    code, said = bed.install()
    assert code == 4, said
    assert "nothing of it was left running or enabled" in said
    assert (
        bed.machine.show(UNIT, "LoadState") == bed.machine.show(SOCKET, "LoadState") == "not-found"
    )
    listed = bed.machine.run("systemctl", "list-units", "--plain", "--no-legend", f"{NAME}*").stdout
    assert listed == ""
    bed.machine.run("rm", "-r", directory)
    code, said = bed.install()
    assert code == 0, said
    assert bed.service.ask().status_code == 200


def test_the_deployment_beside_it_is_untouched(host: object, bed: Bed) -> None:
    """Another name is another deployment."""
    assert bed.install("--force")[0] == 0
    assert bed.machine.show("optillm-proxy.service", "NRestarts") == "0"
    assert bed.machine.run("test", "-d", f"{OPT}/releases", check=False).returncode == 0
    assert bed.machine.run("test", "-f", f"{ETC}/proxy_key", check=False).returncode == 0
