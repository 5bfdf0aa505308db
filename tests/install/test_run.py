"""`optictl run`: the deployment in the foreground, and its way out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from optictl.demo.standin import Reply, Seen
from optictl.host import processes
from tests import deployments
from tests.deployments import Deployment
from tests.support import PROXY_KEY, open_directory

pytestmark = pytest.mark.slow

OPTICTL = Path(sys.executable).with_name("optictl")


@pytest.fixture(scope="module")
def deployment(locked_venv: Path) -> Iterator[Deployment]:
    with open_directory() as root:
        yield deployments.make(root, locked_venv)


def _start(deployment: Deployment) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [OPTICTL, "run", "--root", str(deployment.root)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            httpx.get(f"http://127.0.0.1:{deployment.config.listen.port}/health", timeout=1)
        except httpx.TransportError:
            time.sleep(0.05)
        else:
            return process
    raise AssertionError(process.communicate()[0])


def _ask(deployment: Deployment) -> httpx.Response:
    body = {"model": "bon-jerry-xl", "messages": [{"role": "user", "content": "hello"}]}
    headers = {"Authorization": f"Bearer {PROXY_KEY}"}
    return httpx.post(f"{deployment.config.url}/chat/completions", json=body, headers=headers, timeout=30)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_what_is_in_flight_finish(deployment: Deployment, number: signal.Signals) -> None:
    arrived = threading.Event()

    def slow(seen: Seen) -> Reply | None:
        if seen.method == "POST":
            arrived.set()
            time.sleep(0.5)
        return None

    answers: list[httpx.Response] = []
    with deployment.standin(respond=slow).running():
        process = _start(deployment)
        client = threading.Thread(target=lambda: answers.append(_ask(deployment)))
        client.start()
        assert arrived.wait(20)
        process.send_signal(number)
        client.join(30)
        said = process.communicate(timeout=30)[0]
    assert answers[0].status_code == 200
    assert process.returncode == 0
    assert "draining" in said


def test_it_runs_as_the_unit_would(deployment: Deployment) -> None:
    with deployment.standin().running():
        process = _start(deployment)
        try:
            results = deployment.check()
        finally:
            process.terminate()
            process.communicate()
    assert {r.id: r.found for r in results.values() if r.status not in ("pass", "skip")} == {}
    assert results["process.guarded"].status == "pass"


def test_killing_optictl_ends_the_service(deployment: Deployment) -> None:
    with deployment.standin().running():
        process = _start(deployment)
        process.kill()
        process.wait()
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if deployment.check("health.alive")["health.alive"].status == "fail":
                break
            time.sleep(0.1)
        assert deployment.check("health.alive")["health.alive"].status == "fail"
    assert deployment.config.listen.port not in {one.port for one in processes.listeners()}


def _run(deployment: Deployment) -> subprocess.CompletedProcess[str]:
    return subprocess.run([OPTICTL, "run", "--root", str(deployment.root)], capture_output=True, text=True, check=False)


def test_what_it_refuses(deployment: Deployment) -> None:
    deployment.reset()
    deployment.paths.proxy_key.write_text("sk-0123456789abcdefghijklmnop\n")
    refused = _run(deployment)
    assert refused.returncode == 78
    assert "begins with sk-" in refused.stdout + refused.stderr
    assert "sk-0123456789" not in refused.stdout + refused.stderr

    deployment.reset()
    deployment.paths.env.write_text("OPENAI_API_KEY=\n")
    missing = _run(deployment)
    assert missing.returncode == 1
    assert "OPENAI_API_KEY" in missing.stderr
    deployment.reset()


def test_a_taken_port_is_named(deployment: Deployment) -> None:
    deployment.reset()
    with deployment.standin().running(), deployment.serving():
        second = _run(deployment)
    assert second.returncode == 1
    assert f"port {deployment.config.listen.port} is taken" in second.stderr


def test_smoke_from_the_command_line(deployment: Deployment) -> None:
    deployment.reset()
    with deployment.standin().running() as upstream, deployment.serving():
        command = [str(OPTICTL), "smoke", "--all", "--root", str(deployment.root), "--output", "json"]
        good = subprocess.run(command, capture_output=True, text=True, check=False)
        upstream.respond = lambda seen: Reply(500, {"error": {"message": "out of order"}}) if seen.method == "POST" else None
        bad = subprocess.run([*command[:2], "moa-jerry-xl", *command[3:]], capture_output=True, text=True, check=False)
    assert good.returncode == 0, good.stdout
    results = json.loads(good.stdout)["results"]
    calls = {r["data"]["strategy"]: r["data"]["upstream_calls"] for r in results}
    assert calls == {"moa": 3, "bon": 4, "plansearch": 4, "self_consistency": 5}
    assert set(results[0]["data"]) == {
        "strategy", "base_model", "upstream_calls", "upstream_models", "upstream_failures", "latency_ms", "tokens", "answer",
    }  # fmt: skip
    assert bad.returncode == 1
    failed = json.loads(bad.stdout)
    assert failed["status"] == "failed"
    assert "the upstream answered 500: out of order" in failed["results"][0]["found"]


def test_smoke_cannot_be_fooled_by_an_optillm_without_the_guard(deployment: Deployment) -> None:
    deployment.reset()
    program = (
        "from optictl.demo.standin import StandIn; import time\n"
        f"with StandIn(models=('moa-jerry-xl',), port={deployment.config.listen.port}).running(): time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    )
    try:
        for _ in range(100):
            if deployment.check("health.locked")["health.locked"].status != "skip":
                break
            time.sleep(0.1)
        command = [OPTICTL, "smoke", "moa-jerry-xl", "--root", str(deployment.root)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    finally:
        process.kill()
        process.wait()
    assert result.returncode == 1
    assert "runs without the guard" in result.stdout
