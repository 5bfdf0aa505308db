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

from optictl.facts.deployment import Deployment
from optictl.guard.invariants import FORBIDDEN, forbidden_variables
from optictl.host import processes
from optictl.proof.standin import Reply, Seen
from testing import deployments
from testing.deployments import InstalledDeployment
from testing.support import PROXY_KEY, UPSTREAM_KEY, open_directory
from tests.integration.cli.helpers import SMOKE_DATA

pytestmark = pytest.mark.slow

OPTICTL = Path(sys.executable).with_name("optictl")


@pytest.fixture(scope="module")
def deployment(locked_venv: Path) -> Iterator[InstalledDeployment]:
    with open_directory() as root:
        yield deployments.make(root, locked_venv)


def _start(deployment: InstalledDeployment) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [OPTICTL, "run", "--root", str(deployment.root)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
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


def _ask(deployment: InstalledDeployment) -> httpx.Response:
    body = {"model": "bon-jerry-xl", "messages": [{"role": "user", "content": "hello"}]}
    headers = {"Authorization": f"Bearer {PROXY_KEY}"}
    return httpx.post(
        f"{deployment.config.url}/chat/completions", json=body, headers=headers, timeout=30
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_what_is_in_flight_finish(
    deployment: InstalledDeployment, number: signal.Signals
) -> None:
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


def test_it_runs_as_the_unit_would(deployment: InstalledDeployment) -> None:
    with deployment.standin().running():
        process = _start(deployment)
        try:
            results = deployment.check()
        finally:
            process.terminate()
            process.communicate()
    assert {r.id: r.found for r in results.values() if r.status not in ("pass", "skip")} == {}
    assert results["process.guarded"].status == "pass"


def test_an_upgrade_says_that_it_has_to_be_stopped_first(
    deployment: InstalledDeployment,
) -> None:
    """Before it builds anything, with the command that stops it."""
    command = [
        str(OPTICTL),
        "upgrade",
        "0.3.13",
        "--root",
        str(deployment.root),
        "--output",
        "json",
    ]
    with deployment.standin().running():
        process = _start(deployment)
        try:
            plan = subprocess.run(
                [*command, "--dry-run"], capture_output=True, text=True, check=False
            )
            asked = subprocess.run([*command, "--yes"], capture_output=True, text=True, check=False)
            said = json.loads(plan.stdout)
            stop, *_, start = said["error"]["remedy"].split(", then ")
            subprocess.run(["sh", "-c", stop], check=True, timeout=60)
            process.communicate(timeout=30)
        finally:
            process.kill()
            process.communicate()
        again = subprocess.run([*command, "--dry-run"], capture_output=True, text=True, check=False)
    assert (plan.returncode, asked.returncode, again.returncode) == (1, 1, 0)
    assert json.loads(asked.stdout)["error"] == {
        **said["error"],
        "problems": json.loads(asked.stdout)["error"]["problems"],
    }
    assert "serves this deployment in the foreground" in said["error"]["what"]
    assert start.endswith(f"run --root {deployment.root}")
    assert [release.name for release in deployment.paths.releases.iterdir()] == [
        deployment.release.name
    ]


def test_killing_optictl_ends_the_service(deployment: InstalledDeployment) -> None:
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


def _run(deployment: InstalledDeployment) -> subprocess.CompletedProcess[str]:
    command = [OPTICTL, "run", "--root", str(deployment.root)]
    # one that serves instead ends with the timeout
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_what_it_refuses(deployment: InstalledDeployment) -> None:
    deployment.reset()
    deployment.paths.proxy_key.write_text("sk-0123456789abcdefghijklmnop\n")
    refused = _run(deployment)
    assert refused.returncode == 78
    assert "begins with sk-" in refused.stdout + refused.stderr
    assert "sk-0123456789" not in refused.stdout + refused.stderr

    deployment.reset()


SECRET = "value-that-must-not-be-printed"


def _refuses(deployment: InstalledDeployment, content: bytes) -> str:
    """What `run` says of an env file that the unit refuses too."""
    deployment.reset()
    deployment.paths.env.write_bytes(content)
    refused = _run(deployment)
    deployment.reset()
    said = refused.stdout + refused.stderr
    assert refused.returncode == 78, said
    assert SECRET not in said
    # whether the path of the program is needed depends on the tests' own
    return " ".join(said.replace(f"{OPTICTL} ", "optictl ").split())


@pytest.mark.parametrize("name", [*sorted(FORBIDDEN), "https_proxy", "OPTILLM_N"])
def test_a_variable_that_the_unit_refuses(deployment: InstalledDeployment, name: str) -> None:
    said = _refuses(deployment, f"OPENAI_API_KEY={UPSTREAM_KEY}\n{name}={SECRET}\n".encode())
    assert (
        f"optillm-guard: refused to start: {name} is set: it {forbidden_variables([name])[name]} "
        in said
    )
    assert f"sed -i -E '/^\\s*(export\\s+)?({name})\\s*=/d' {deployment.paths.env}" in said


@pytest.mark.parametrize(
    ("content", "words", "remedy"),
    [
        (b"OPENAI_API_KEY=\n", "OPENAI_API_KEY is missing", "write the line OPENAI_API_KEY="),
        (b"", "OPENAI_API_KEY is missing", "write the line OPENAI_API_KEY="),
        (
            f"export OPENAI_API_KEY={SECRET}\n".encode(),
            "line 1 (OPENAI_API_KEY): systemd ignores a line",
            "sed -i -E",
        ),
        (
            f"\ufeffOPENAI_API_KEY={SECRET}\n".encode(),
            "line 1 (OPENAI_API_KEY): the file begins with a byte",
            "LC_ALL=C sed",
        ),
        (
            f"OPENAI_API_KEY={SECRET}\n".encode("utf-16"),
            "line 1 (OPENAI_API_KEY): the file is UTF-16",
            "iconv -f UTF-16 ",
        ),
        (
            f"OPENAI_API_KEY={SECRET}\nA=\u00e9".encode("latin-1"),
            "line 2 (A): it is not UTF-8",
            "iconv -f LATIN1 ",
        ),
        (
            f"OPENAI_API_KEY={SECRET}\nexport HTTP_PROXY=x".encode(),
            "line 2 (HTTP_PROXY): systemd ignores a line",
            "sed -i -E",
        ),
    ],
)
def test_an_env_file_that_is_not_read_as_it_is_meant(
    deployment: InstalledDeployment, content: bytes, words: str, remedy: str
) -> None:
    said = _refuses(deployment, content)
    assert said.count("optillm-guard: refused to start: ") == 1
    assert words in said
    assert remedy in said
    assert str(deployment.paths.env) in said


def test_all_that_is_wrong_is_told_at_once_and_one_paste_serves(
    deployment: InstalledDeployment,
) -> None:
    content = (
        f"export OPENAI_API_KEY={UPSTREAM_KEY}\nHTTP_PROXY={SECRET}\nstray\n"
        f"export ALL_PROXY={SECRET}\n"
    )
    said = _refuses(deployment, content.encode())
    for words in (
        "line 1 (OPENAI_API_KEY)",
        "line 3: it has no =",
        "line 4 (ALL_PROXY)",
        "HTTP_PROXY is set",
    ):
        assert words in said
    steps, _, start = said.partition("fix ")[2].rpartition(" && ")
    assert start == f"optictl run --root {deployment.root}"
    assert "optictl run" not in steps
    deployment.paths.env.write_text(content)
    subprocess.run(["sh", "-c", steps], check=True)
    assert deployment.paths.env.read_text() == f"OPENAI_API_KEY={UPSTREAM_KEY}\n# stray\n"
    deployment.reset()


@pytest.mark.parametrize("name", ["env", "proxy_key"])
def test_a_file_that_the_unit_cannot_do_without(deployment: InstalledDeployment, name: str) -> None:
    deployment.reset()
    path = getattr(deployment.paths, name)
    path.unlink()
    refused = _run(deployment)
    deployment.reset()
    assert refused.returncode == 78
    assert f"there is no {path}" in " ".join(refused.stderr.split())
    assert "optictl init" in refused.stderr


def test_it_has_the_environment_of_the_unit(deployment: InstalledDeployment) -> None:
    deployment.reset()
    deployment.paths.env.write_text(f"OPENAI_API_KEY='{UPSTREAM_KEY}'\r\nTZ=Asia/Tokyo # x\r\n")
    with deployment.standin().running():
        process = _start(deployment)
        try:
            carried = {
                name
                for p in Deployment(deployment.paths).live.processes
                for name in (p.environ or {}).items()
            }
            answer = _ask(deployment)
        finally:
            process.terminate()
            process.communicate()
            deployment.reset()
    assert answer.status_code == 200
    assert ("TZ", "Asia/Tokyo # x") in carried
    # the key came as a credential
    assert "OPENAI_API_KEY" not in {name for name, _ in carried}


def test_a_taken_port_is_named(deployment: InstalledDeployment) -> None:
    deployment.reset()
    with deployment.standin().running(), deployment.serving():
        second = _run(deployment)
    assert second.returncode == 1
    assert f"port {deployment.config.listen.port} is in use" in second.stderr


def test_smoke_from_the_command_line(deployment: InstalledDeployment) -> None:
    deployment.reset()
    with deployment.standin().running() as upstream, deployment.serving():
        command = [
            str(OPTICTL),
            "smoke",
            "--all",
            "--root",
            str(deployment.root),
            "--output",
            "json",
        ]
        good = subprocess.run(command, capture_output=True, text=True, check=False)
        upstream.respond = lambda seen: (
            Reply(500, {"error": {"message": "out of order"}}) if seen.method == "POST" else None
        )
        bad = subprocess.run(
            [*command[:2], "moa-jerry-xl", *command[3:]],
            capture_output=True,
            text=True,
            check=False,
        )
    assert good.returncode == 0, good.stdout
    results = json.loads(good.stdout)["results"]
    calls = {r["data"]["strategy"]: r["data"]["upstream_calls"] for r in results}
    assert calls == {"moa": 3, "bon": 4, "plansearch": 4, "self_consistency": 5}
    assert results[0]["data"].keys() == SMOKE_DATA
    assert bad.returncode == 1
    failed = json.loads(bad.stdout)
    assert failed["status"] == "failed"
    assert "the upstream answered 500: out of order" in failed["results"][0]["found"]


def test_smoke_cannot_be_fooled_by_an_optillm_without_the_guard(
    deployment: InstalledDeployment,
) -> None:
    deployment.reset()
    program = (
        "from optictl.proof.standin import StandIn; import time\n"
        f"with StandIn(models=('moa-jerry-xl',), port={deployment.config.listen.port}).running(): "
        "time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
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
