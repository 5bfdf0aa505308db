"""Faults of the live process and of its upstream, also of an OptiLLM that was started by hand."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from optictl.results import roots
from testing.deployments import InstalledDeployment
from testing.support import PROXY_KEY, UPSTREAM_KEY, spawn, stop, wait_ready

pytestmark = pytest.mark.slow


@contextmanager
def _by_hand(
    deployment: InstalledDeployment, *extra: str, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """The OptiLLM of the release on the deployment's port, as a runbook would start it."""
    home = deployment.root / "other-home"
    home.mkdir(exist_ok=True)
    command = [
        *(str(deployment.release / ".venv/bin" / name) for name in ("python", "optillm")),
        "--host",
        "127.0.0.1",
        "--port",
        str(deployment.config.listen.port),
        "--base-url",
        deployment.config.upstream.base_url,
        "--approach",
        "proxy",
        "--model",
        "jerry-xl",
        *extra,
    ]
    log = deployment.root / "by-hand.log"
    process = spawn(
        command, {"HOME": str(home), "OPENAI_API_KEY": UPSTREAM_KEY, **environment}, home, log
    )
    try:
        wait_ready(process, deployment.config.listen.port, log)
        yield process
    finally:
        stop(process)


def test_an_optillm_started_by_hand_is_judged(deployment: InstalledDeployment) -> None:
    with (
        deployment.standin().running(),
        _by_hand(deployment, "--optillm-api-key", PROXY_KEY, OPTILLM_N="2") as process,
    ):
        results = deployment.check()
    for id, words in {
        "process.guarded": "without the guard",
        "key.not-in-argv": f"argument list of process {process.pid}",
        "proxy-config.in-force": "other-home",
        "env.forbidden": f"OPTILLM_N is set in process {process.pid}",
    }.items():
        assert results[id].status == "fail", results[id]
        assert words in results[id].found
        assert results[id].remedy.startswith(f"kill {process.pid} && ")
    assert roots(list(results.values()))[0].id == "process.guarded"
    assert {results[id].root_cause for id in ("key.not-in-argv", "proxy-config.in-force")} == {
        "process.guarded"
    }
    assert results["bind.loopback"].status == "pass"
    assert PROXY_KEY not in str([r.as_dict() for r in results.values()])


def test_an_optillm_without_a_key_is_not_locked(deployment: InstalledDeployment) -> None:
    with deployment.standin().running(), _by_hand(deployment):
        result = deployment.check("health.locked")["health.locked"]
    assert result.status == "fail"
    assert "200" in result.found


@pytest.mark.root
def test_a_service_that_runs_as_root(deployment: InstalledDeployment) -> None:
    program = (
        "import socket, time; s = socket.create_server(('127.0.0.1', "
        f"{deployment.config.listen.port})); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", program])
    try:
        result = _until_live(deployment, "process.non-root")
    finally:
        process.kill()
        process.wait()
    assert result.status == "fail"
    assert f"process {process.pid} runs as root" in result.found


def _until_live(deployment: InstalledDeployment, id: str):  # type: ignore[no-untyped-def]
    for _ in range(100):
        result = deployment.check(id)[id]
        if result.status != "skip":
            break
        time.sleep(0.1)
    return result


@pytest.mark.root
def test_a_service_that_other_machines_can_reach(deployment: InstalledDeployment) -> None:
    # in a network namespace of its own 0.0.0.0 is nobody's address but ours
    port = deployment.config.listen.port
    program = (
        "import json, socket; from pathlib import Path; "
        f"s = socket.create_server(('0.0.0.0', {port}));"
        "from optictl.deployment import paths; from optictl.checks import catalog;"
        "from optictl.facts.deployment import Deployment;"
        f"site = Deployment(paths.system(Path({str(deployment.root)!r})));"
        "print(json.dumps(catalog.run(catalog.select(['bind.loopback']), site)[0].as_dict()))"
    )
    result = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[3],
    )
    assert '"status": "fail"' in result.stdout
    assert f"listens on 0.0.0.0:{port}" in result.stdout


def test_nothing_listens(deployment: InstalledDeployment) -> None:
    results = deployment.check("health", "process", "bind")
    assert results["health.alive"].status == "fail"
    assert "optictl run --root" in results["health.alive"].remedy
    for id in ("bind.loopback", "process.non-root"):
        assert (results[id].status, results[id].root_cause) == ("skip", "")
        assert "nothing listens" in results[id].found
    for id in ("process.guarded", "health.locked", "health.connected"):
        assert (results[id].status, results[id].root_cause) == ("skip", "health.alive")
        assert results[id].found == "requires health.alive, which failed"


def test_the_proxy_key_was_rotated_on_disk_only(deployment: InstalledDeployment) -> None:
    with deployment.standin().running(), deployment.serving():
        deployment.paths.proxy_key.write_text("optillm-another-key-0123456789-abcdef\n")
        result = deployment.check("health.connected")["health.connected"]
    assert result.status == "fail"
    assert "refuses the key in" in result.found
    assert "optictl run --root" in result.remedy


def test_a_provider_file_that_is_newer_than_the_process(deployment: InstalledDeployment) -> None:
    with deployment.standin().running(), deployment.serving():
        path = deployment.paths.proxy_config
        later = path.stat().st_mtime + 3600
        os.utime(path, (later, later))
        result = deployment.check("proxy-config.in-force")["proxy-config.in-force"]
    assert result.status == "warn"
    assert "after process" in result.found
