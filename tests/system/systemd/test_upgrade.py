"""From one OptiLLM to the next and back under load; upgrades that go wrong end where they began."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import httpx
import pytest

from optictl.deployment import render
from optictl.proof.standin import Reply, Seen, completion
from testing.host import ETC, OPT, Host
from testing.load import Load, slow_upstream
from testing.support import PROXY_KEY, proxy_config

pytestmark = [pytest.mark.slow, pytest.mark.root]

UNIT = "optillm-proxy.service"
FILE = f"/etc/systemd/system/{UNIT}"
OLD, NEW = "0.3.12", "0.3.13"
#: Written by a person, after the specification; it has the key because OptiLLM reads it only there.
BY_HAND = """\
[Unit]
Description=made by hand
[Service]
User=nobody
Environment=HOME={place} OPENAI_API_KEY=upstream-test-key
WorkingDirectory={place}
ExecStart={place}/.venv/bin/python {place}/.venv/bin/optillm --host 127.0.0.1 --port {port} \\
  --base-url {upstream} --model jerry-xl --optillm-api-key {key} --approach proxy
Restart=on-failure
[Install]
WantedBy=multi-user.target
"""


@pytest.fixture(scope="module", autouse=True)
def installed(host: Host) -> Iterator[None]:
    """The old release, and room for the new one beside it. Every test leaves it so."""
    host.renew()
    host.configure(f"optillm: {{version: {OLD}}}\nreleases: {{keep: 3}}\n")
    host.optictl("install", "--yes", "--force")
    yield
    host.configure()
    host.optictl("install", "--yes")


@pytest.fixture(autouse=True)
def answering(host: Host) -> Iterator[None]:
    """An upstream that answers at once, but for what a test makes of it."""
    yield
    host.upstream.respond = None


def version(host: Host) -> str:
    """The OptiLLM that the running process has, by its own working directory."""
    pid = host.machine.show(UNIT, "MainPID")
    here = host.machine.run("stat", "-Lc", "%d:%i", f"/proc/{pid}/cwd").stdout
    releases = json.loads(host.optictl("releases", "--output", "json").stdout)["results"]
    for one in releases:
        if (
            host.machine.run(
                "stat", "-Lc", "%d:%i", f"/opt/optillm-proxy/releases/{one['id']}/work"
            ).stdout
            == here
        ):
            return str(one["data"]["version"])
    raise AssertionError(f"process {pid} runs none of {releases}")


def assert_as_before(host: Host) -> None:
    """The old release is active, runs, is configured, and nothing is left over."""
    assert version(host) == OLD
    assert f"version: {OLD}" in host.machine.read(f"{ETC}/optictl.yaml")
    assert host.machine.show("optillm-proxy-next.service", "LoadState") == "not-found"
    host.upstream.respond = None
    assert host.ask().status_code == 200
    assert "No changes." in host.optictl("install", "--yes").stdout


def test_there_and_back_nobody_notices(host: Host) -> None:
    host.upstream.respond = slow_upstream
    with Load(host.port, PROXY_KEY).running() as load:
        upgraded = host.optictl("upgrade", NEW, "--yes")
        assert version(host) == NEW
        back = host.optictl("rollback", "--yes")
        assert version(host) == OLD
    assert f"version: {OLD}" in host.machine.read(f"{ETC}/optictl.yaml")
    for tally in (load.gets, load.strategies):
        assert tally.count("ok") == len(tally.requests) > 10
    # what each strategy did, beside the release that is in force
    for text in (upgraded.stdout, back.stdout):
        assert all(
            f"{strategy}-jerry-xl" in text
            for strategy in ("moa", "bon", "plansearch", "self_consistency")
        )


def test_a_canary_switches_nothing(host: Host) -> None:
    pid = host.machine.show(UNIT, "MainPID")
    shown = json.loads(
        host.optictl("upgrade", NEW, "--canary-only", "--dry-run", "--output", "json").stdout
    )
    assert {change["action"] for change in shown["results"]} <= {"build", "conform", "canary"}
    proven = json.loads(
        host.optictl("upgrade", NEW, "--canary-only", "--yes", "--output", "json").stdout
    )
    assert [r["status"] for r in proven["results"]] == ["pass"] * 4
    assert proven["switched"] is False
    assert len(proven["current"]) == 4
    assert host.machine.show(UNIT, "MainPID") == pid
    assert_as_before(host)


def test_a_release_that_cannot_start(host: Host) -> None:
    """Its lock leaves out what the guard needs: all but OptiLLM itself."""
    lock = (
        (render.template_directory() / "locks" / f"optillm-{NEW}-proxy.txt").read_text().split("\n")
    )
    start = next(i for i, line in enumerate(lock) if line.startswith("optillm=="))
    end = next(i for i in range(start + 1, len(lock)) if not lock[i].startswith(" "))
    host.machine.write("/run/short.txt", "\n".join(lock[start:end]) + "\n")
    pid = host.machine.show(UNIT, "MainPID")
    failed = host.optictl("upgrade", NEW, "--lock", "/run/short.txt", "--yes", check=False)
    host.machine.run("rm", "/run/short.txt")
    assert failed.returncode == 4, failed.stderr
    assert not host.machine.run("sh", "-c", f"ls {ETC}/locks", check=False).stdout
    assert "No module named 'gunicorn'" in failed.stderr
    assert host.machine.show(UNIT, "MainPID") == pid
    assert "half-built" not in host.optictl("releases").stdout
    assert_as_before(host)


@pytest.mark.parametrize("switched", [False, True], ids=["before-the-switch", "after-it"])
def test_an_upstream_that_fails_in_the_middle(host: Host, switched: bool) -> None:
    """Before the canary has passed, and after it: then the new release fails the last proof."""
    seen = 0

    def dying(request: Seen) -> Reply | None:
        nonlocal seen
        if request.method != "POST":
            return None
        seen += 1
        fails = (
            NEW in host.machine.run("readlink", f"{OPT}/current").stdout if switched else seen > 3
        )
        return (
            Reply(500, {"error": {"message": "gone"}})
            if fails
            else Reply(body=completion(request.body or {}))
        )

    host.upstream.respond = dying
    failed = host.optictl("upgrade", NEW, "--yes", check=False)
    assert failed.returncode == 4, failed.stderr
    said = " ".join(failed.stderr.split())
    assert ("the active release, the same" if switched else "is still active") in said
    if switched:
        assert f"activated {NEW}" in said
        assert f"rolling back to {OLD}" in said
    assert_as_before(host)


def test_a_version_without_a_lock(host: Host) -> None:
    refused = host.optictl("upgrade", "0.3.14", "--yes", check=False)
    assert refused.returncode == 1
    assert "has no lock file for OptiLLM 0.3.14" in " ".join(refused.stderr.split())
    assert "--resolve" in refused.stderr


def test_an_edited_unit_is_never_overwritten_silently(host: Host) -> None:
    host.machine.run("sed", "-i", "s/^RestartSec=.*/RestartSec=7/", FILE)
    refused = host.optictl("install", "--yes", check=False)
    assert refused.returncode == 1
    assert "-RestartSec=7" in refused.stdout
    assert "RestartSec=7" in host.machine.read(FILE)
    host.optictl("install", "--yes", "--force")
    assert "RestartSec=7" not in host.machine.read(FILE)
    kept = host.machine.run("sh", "-c", f"grep -l RestartSec=7 {FILE}.kept-*").stdout.strip()
    host.machine.run("rm", kept)
    assert_as_before(host)


def test_a_deployment_made_by_hand_is_taken_over(host: Host) -> None:
    """The runbook's: OptiLLM in a venv, and a unit that holds the port itself."""
    release = host.machine.run("readlink", "-f", f"{OPT}/current").stdout.strip()
    place = "/srv/homelab/optillm-proxy"
    host.machine.run("mkdir", "-p", f"{place}/.optillm")
    host.machine.run("cp", "-al", f"{release}/.venv", f"{place}/.venv")
    host.machine.write(f"{place}/.optillm/proxy_config.yaml", proxy_config(host.upstream.base_url))
    host.uninstall()
    host.machine.write(
        FILE,
        BY_HAND.format(place=place, port=host.port, upstream=host.upstream.base_url, key=PROXY_KEY),
    )
    host.machine.run("systemctl", "daemon-reload")
    host.machine.run("systemctl", "enable", "--now", "-q", UNIT)
    _until_it_answers(host)
    assert "x-optillm-guard" not in host.ask().headers
    shown = host.optictl("install", "--dry-run").stdout
    assert "it was written by hand" in " ".join(shown.split())
    assert "the trial serves until the new one is ready" in " ".join(shown.split())
    assert PROXY_KEY not in shown
    assert host.optictl("install", "--yes", check=False).returncode == 1
    assert "made by hand" in host.machine.read(FILE)
    host.optictl("install", "--yes", "--force")
    kept = host.machine.run(
        "sh", "-c", f"grep -l 'made by hand' {ETC}/before/*.service"
    ).stdout.strip()
    assert host.machine.read(kept).startswith("[Unit]\nDescription=made by hand")
    host.machine.run("rm", "-r", f"{ETC}/before", "/srv/homelab")
    assert "x-optillm-guard" in host.ask().headers
    assert_as_before(host)


def _until_it_answers(host: Host) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            assert host.ask().status_code == 200
            return
        except httpx.TransportError:
            assert time.monotonic() < deadline
            time.sleep(0.2)


def test_two_deployments_on_one_host(host: Host) -> None:
    other, port = "optillm-two", host.port + 1
    host.machine.run("mkdir", "-p", f"/etc/{other}")
    for name, mode in (("optictl.yaml", 0o644), ("env", 0o600), ("proxy_key", 0o600)):
        text = host.machine.read(f"{ETC}/{name}").replace(f"port: {host.port}", f"port: {port}")
        host.machine.write(f"/etc/{other}/{name}", text, mode)
    pid = host.machine.show(UNIT, "MainPID")
    # built already
    host.machine.run("sh", "-c", f"mkdir /opt/{other} && cp -al {OPT}/releases /opt/{other}")
    host.optictl("install", "--name", other, "--yes")
    assert host.machine.show(f"{other}.service", "ActiveState") == "active"
    results = json.loads(
        host.optictl("check", "--name", other, "--output", "json", check=False).stdout
    )["results"]
    assert [r["id"] for r in results if r["status"] in ("fail", "error")] == []
    host.optictl("uninstall", "--name", other, "--purge", "--yes")
    assert (
        host.machine.run(
            "sh", "-c", f"ls -d /etc/{other} /opt/{other} /var/lib/{other}", check=False
        ).stdout
        == ""
    )
    assert host.machine.show(UNIT, "MainPID") == pid
    assert_as_before(host)
