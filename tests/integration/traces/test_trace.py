"""`optictl trace` and `optictl smoke --trace` with the real OptiLLM."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from optictl.proof.standin import Reply, Seen, StandIn
from testing import deployments
from testing.deployments import InstalledDeployment
from testing.support import PROXY_KEY, UPSTREAM_KEY, open_directory
from tests.integration.cli.helpers import Outcome, assert_envelope, in_terminal, optictl

pytestmark = pytest.mark.slow

MARK = "xyzzy-prompt-mark"


@pytest.fixture(scope="module")
def served(locked_venv: Path) -> Iterator[tuple[InstalledDeployment, StandIn]]:
    with open_directory() as root:
        deployment = deployments.make(root, locked_venv)
        standin = deployment.standin()
        with standin.running(), deployment.serving():
            yield deployment, standin


@pytest.fixture
def deployment(served: tuple[InstalledDeployment, StandIn]) -> InstalledDeployment:
    return served[0]


@pytest.fixture
def upstream(served: tuple[InstalledDeployment, StandIn]) -> Iterator[StandIn]:
    served[1].seen.clear()
    yield served[1]
    served[1].respond = None


def _run(deployment: InstalledDeployment, *words: str) -> Outcome:
    return optictl(*words, "--root", deployment.root, home=deployment.root)


def test_a_request_is_told_call_by_call(deployment: InstalledDeployment, upstream: StandIn) -> None:
    done = _run(deployment, "trace", "bon-jerry-xl", MARK, "--output", "json")
    assert done.code == 0, done.err
    (result,) = assert_envelope(done.data, "trace", "ok")
    trace = result["data"]["trace"]
    assert (result["id"], result["status"], trace["strategy"], trace["status"]) == (
        "bon-jerry-xl",
        "pass",
        "bon",
        200,
    )
    assert [call["purpose"] for call in trace["calls"]] == [
        "candidate",
        "rating",
        "rating",
        "rating",
    ]
    assert len(upstream.calls()) == 4
    assert MARK not in done.out + done.err


@pytest.mark.parametrize("columns", [80, 120])
def test_it_is_drawn_within_the_terminal(
    deployment: InstalledDeployment, upstream: StandIn, columns: int
) -> None:
    done = in_terminal(
        "trace",
        "plansearch-jerry-xl",
        MARK,
        "--root",
        deployment.root,
        home=deployment.root,
        columns=columns,
    )
    assert done.code == 0
    lines = done.lines
    drawn = [line for line in lines if "━" in line]
    assert [line.split("━")[0].strip() for line in drawn] == [
        "observations",
        "derived observations",
        "solution",
        "final",
    ]
    assert max(map(len, lines)) <= columns
    assert MARK not in done.out


def test_what_failed_stands_out(deployment: InstalledDeployment, upstream: StandIn) -> None:
    upstream.respond = lambda _: Reply(429, {"error": {"message": f"slow down, {UPSTREAM_KEY}"}})
    done = _run(deployment, "trace", "moa-jerry-xl", MARK)
    assert done.code == 1
    assert "429 upstream_rate_limited" in done.out
    assert UPSTREAM_KEY not in done.out + done.err


def test_contents_are_shown_to_who_asks(
    deployment: InstalledDeployment, upstream: StandIn, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    done = _run(deployment, "trace", "moa-jerry-xl", MARK, "--content", "--save", str(page))
    assert done.code == 0, done.err
    assert MARK in done.out
    assert done.out.count("answer:") == 5  # three candidates, a critique, the end
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    assert MARK in page.read_text()
    assert PROXY_KEY not in page.read_text() + done.out + done.err


def test_smoke_draws_each_request(
    deployment: InstalledDeployment, upstream: StandIn, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    done = _run(deployment, "smoke", "moa-jerry-xl", "bon-jerry-xl", "--trace", "--save", str(page))
    assert done.code == 0, done.err
    assert done.out.count("━") > 7
    assert done.out.index("All good") < done.out.index("\ncritique")
    assert (page.read_text().count("<rect"), stat.S_IMODE(page.stat().st_mode)) == (7, 0o644)
    told = _run(deployment, "smoke", "moa-jerry-xl", "--trace", "--output", "json").data
    (result,) = assert_envelope(told, "smoke", "ok")
    assert len(result["data"]["trace"]["calls"]) == result["data"]["upstream_calls"] == 3


def test_a_request_through_litellm_is_traced_too(
    deployment: InstalledDeployment, upstream: StandIn, tmp_path: Path
) -> None:
    """LiteLLM has its own key and passes the headers of the answer on under longer names."""

    def forward(seen: Seen) -> Reply:
        headers = {"Authorization": f"Bearer {PROXY_KEY}"}
        answer = httpx.post(
            f"{deployment.config.url}/chat/completions", json=seen.body, headers=headers, timeout=60
        )
        told = {
            f"llm_provider-{name}": value
            for name, value in answer.headers.items()
            if name.startswith("x-optillm-")
        }
        return Reply(answer.status_code, answer.json(), told)

    key = tmp_path / "key"
    key.write_text("sk-a-key-of-litellm\n")
    with StandIn(key="sk-a-key-of-litellm", respond=forward).running() as litellm:
        options = ("--url", litellm.base_url, "--key-file", str(key))
        for words in (
            ("smoke", "moa-jerry-xl", "--trace", *options),
            ("trace", "moa-jerry-xl", MARK, *options),
        ):
            done = _run(deployment, *words)
            assert done.code == 0, done.err
            assert "critique" in done.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("trace", "jerry-xl", "hello"), "is not an enabled strategy on a base model"),
        (("trace", "moa-jerry-xl"), "Missing argument"),
        (
            ("trace", "moa-jerry-xl", "hello", "--save", "/nowhere/page.html"),
            "there is no directory /nowhere",
        ),
        (
            ("trace", "moa-jerry-xl", "hello", "--content", "--url", "http://127.0.0.1:1/v1"),
            "leave --url out",
        ),
        (
            ("trace", "moa-jerry-xl", "hello", "--url", "http://127.0.0.1:1/v1"),
            "ran no strategy: Connection refused",
        ),
        (("smoke", "moa-jerry-xl", "--content"), "add --trace"),
        (("smoke", "moa-jerry-xl", "--save", "page.html"), "add --trace"),
    ],
)
def test_what_cannot_be_done_costs_nothing(
    deployment: InstalledDeployment, upstream: StandIn, words: tuple[str, ...], said: str
) -> None:
    done = _run(deployment, *words)
    assert done.code in (1, 2)
    assert said in " ".join(done.err.split()).replace(" │ │ ", " ")
    assert "Traceback" not in done.err
    assert upstream.calls() == []


def test_where_no_traces_are_kept_it_says_so(
    deployment: InstalledDeployment, upstream: StandIn, tmp_path: Path
) -> None:
    """A configuration that the service does not run with yet."""
    path = tmp_path / "optictl.yaml"
    configured = yaml.safe_load((deployment.root / "etc/optillm-proxy/optictl.yaml").read_text())
    path.write_text(yaml.safe_dump({**configured, "limits": {"max_traces": 0}}))
    done = _run(deployment, "trace", "moa-jerry-xl", "hello", "--config", str(path))
    assert done.code == 1
    assert "limits.max_traces is 0" in done.err
