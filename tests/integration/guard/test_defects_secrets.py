"""Keys, prompts and where they go: what bare OptiLLM gives away, and the guarded one does not."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from optictl.proof.standin import StandIn
from testing.support import (
    PROXY_KEY,
    UPSTREAM_KEY,
    open_directory,
    proxy_config,
    run_guard,
    wait_until,
)

from .helpers import MARK, OPTILLM, Pair, assert_silent, bare_pair, guarded_pair, text_of

pytestmark = pytest.mark.slow

SK_KEY = "sk-client-0123456789abcdefghijklmn"
PLUGIN = """\
import os
print('a plugin of the working directory ran with', os.environ['OPENAI_API_KEY'])
"""


@pytest.fixture(scope="module")
def careless(release: Path) -> Iterator[Pair]:
    """Bare OptiLLM as anyone might start it: an sk- key, in a directory where others may write."""
    with open_directory() as directory:
        (directory / "optillm/plugins").mkdir(parents=True)
        (directory / "optillm/plugins/handy_plugin.py").write_text(PLUGIN)
        with bare_pair(release, key_demanded=None, key=SK_KEY, cwd=directory) as pair:
            yield pair


@pytest.fixture(scope="module")
def running(release: Path) -> Iterator[Pair]:
    with guarded_pair(release, strategies=["moa", "rstar", "mcts", "cot_reflection"]) as pair:
        yield pair


@pytest.fixture
def guarded_one(running: Pair) -> Pair:
    return running.fresh()


def arguments_of_all(process: int) -> bytes:
    """The command lines of a process and of everything it started."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    own = Path(f"/proc/{process}/cmdline").read_bytes()
    return own + b"".join(arguments_of_all(int(child)) for child in children)


def test_bare_sends_an_sk_key_upstream(careless: Pair) -> None:
    careless.fresh()
    assert text_of(careless.server.ask("moa-jerry-xl"))
    assert careless.bearers == {f"Bearer {SK_KEY}"}


def test_guarded_does_not_start_with_an_sk_key(release: Path) -> None:
    code, output = run_guard(release, key=SK_KEY)
    assert (code, SK_KEY in output) == (78, False)
    assert "sk-" in output


def test_bare_shows_its_key_to_every_local_user(careless: Pair) -> None:
    assert SK_KEY.encode() in arguments_of_all(careless.server.process.pid)


def test_guarded_shows_no_key(guarded_one: Pair) -> None:
    assert text_of(guarded_one.server.ask("moa-jerry-xl"))
    shown = arguments_of_all(guarded_one.server.process.pid)
    assert shown.count(b"--optillm-api-key\0@") >= 2, (
        "the master and its worker, each with a reference"
    )
    assert PROXY_KEY.encode() not in shown
    assert UPSTREAM_KEY.encode() not in shown


def test_bare_runs_what_lies_in_its_working_directory(careless: Pair) -> None:
    assert f"a plugin of the working directory ran with {UPSTREAM_KEY}" in careless.server.journal()


def test_guarded_works_where_nobody_else_can_write(guarded_one: Pair, release: Path) -> None:
    where = Path(f"/proc/{guarded_one.server.process.pid}/cwd").resolve()
    assert where == (release / "work").resolve()
    assert not any(where.iterdir())
    assert where.stat().st_uid == os.getuid()
    assert where.stat().st_mode & 0o022 == 0


@pytest.mark.parametrize("strategy", ["rstar", "mcts", "cot_reflection"])
def test_bare_writes_prompts_or_answers_into_its_log(careless: Pair, strategy: str) -> None:
    question = f"{MARK} {strategy}"
    careless.fresh()
    assert text_of(careless.server.ask(f"{strategy}-jerry-xl", question))
    # cot_reflection logs the answer, the others the question
    words = "7 This is answer 1" if strategy == "cot_reflection" else question
    assert words in careless.server.journal()


@pytest.mark.parametrize("strategy", ["moa", "rstar", "mcts", "cot_reflection"])
def test_guarded_writes_neither(guarded_one: Pair, strategy: str) -> None:
    response = guarded_one.server.ask(f"{strategy}-jerry-xl", MARK)
    assert text_of(response)
    wait_until(lambda: response.headers["x-optillm-trace"] in guarded_one.server.journal())
    assert "This is answer" not in guarded_one.server.journal()
    assert_silent(guarded_one.server)


def test_bare_goes_local_with_a_key_of_its_own_in_the_environment(release: Path) -> None:
    with bare_pair(release, environment={"OPTILLM_API_KEY": "anything"}) as pair:
        assert pair.server.get("/health").status_code == 200
        response = pair.server.ask("moa-jerry-xl")
        assert response.status_code == 500
        assert "torch" in pair.server.journal()
        assert pair.upstream.seen == []


def test_bare_prefers_cerebras(release: Path) -> None:
    with bare_pair(release, environment={"CEREBRAS_API_KEY": "another-providers-key"}) as pair:
        pair.server.ask("moa-jerry-xl")
        assert "Bearer another-providers-key" in pair.bearers
        assert f"Bearer {UPSTREAM_KEY}" not in pair.bearers
        assert "/v1/v1/chat/completions" in {seen.path for seen in pair.upstream.seen}


def test_bare_without_an_upstream_key_ignores_the_upstream(release: Path) -> None:
    with bare_pair(release, environment={"OPENAI_API_KEY": ""}) as pair:
        assert pair.server.get("/health").status_code == 200
        assert pair.server.ask("moa-jerry-xl").status_code == 500
        assert "litellm" in pair.server.journal()
        assert pair.upstream.seen == []


def test_bare_lets_a_variable_overrule_the_model_name(release: Path) -> None:
    with bare_pair(release, environment={"OPTILLM_APPROACH": "re2"}) as pair:
        assert text_of(pair.server.ask("moa-jerry-xl"))
        assert len(pair.upstream.calls()) == 1


@pytest.mark.parametrize(
    "variable",
    ["OPTILLM_API_KEY", "CEREBRAS_API_KEY", "OPENAI_API_KEY", "OPTILLM_APPROACH", "HTTP_PROXY"],
)
def test_guarded_does_not_start_in_such_an_environment(release: Path, variable: str) -> None:
    value = "" if variable == "OPENAI_API_KEY" else "http://127.0.0.1:9"
    code, output = run_guard(release, environment={variable: value})
    assert code == 78
    assert variable in output


def test_bare_goes_through_a_proxy_that_the_environment_names(release: Path) -> None:
    with StandIn().running() as proxy:
        with bare_pair(
            release, environment={"HTTP_PROXY": proxy.base_url.removesuffix("/v1")}
        ) as pair:
            pair.server.ask("moa-jerry-xl", MARK)
            assert pair.upstream.seen == []
            assert proxy.seen[0].path == f"{pair.upstream.base_url}/chat/completions"
        assert proxy.seen[0].headers["authorization"] == f"Bearer {UPSTREAM_KEY}"


@contextmanager
def forward_proxy() -> Iterator[tuple[str, list[str]]]:
    """A proxy that keeps the first line of each request and hangs up: nothing leaves the host."""
    asked: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    asked.append(connection.recv(4096).split(b"\r\n")[0].decode())

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}", asked
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(5)


def test_bare_without_a_proxy_configuration_asks_public_providers(release: Path) -> None:
    with forward_proxy() as (url, asked):
        environment = {"HTTPS_PROXY": url, "NO_PROXY": "127.0.0.1,localhost"}
        with bare_pair(
            release, config=None, arguments=["--approach", "proxy"], environment=environment
        ) as pair:
            assert text_of(pair.server.ask("jerry-xl"))
            if OPTILLM >= (0, 4, 0):  # it writes a file without a provider, and uses another client
                assert not asked
                return
            wait_until(
                lambda: "CONNECT api.openai.com:443 HTTP/1.1" in asked,
                what="a call to a public provider",
            )
            assert "example_config.yaml" in pair.server.journal()


@pytest.mark.parametrize(
    "config",
    ["providers: [", proxy_config("http://127.0.0.1:9/v1").replace("${OPENAI_API_KEY}", "dummy")],
    ids=["unparsable", "wrong key and place"],
)
def test_bare_hides_that_its_proxy_configuration_does_not_work(release: Path, config: str) -> None:
    with bare_pair(release, config=config, arguments=["--approach", "proxy"]) as pair:
        assert text_of(pair.server.ask("jerry-xl"))
        # by the client that the configuration was to replace
        assert pair.bearers == {f"Bearer {UPSTREAM_KEY}"}


@pytest.mark.parametrize("config", [None, "providers: [", proxy_config("http://127.0.0.1:9/v1")])
def test_guarded_does_not_start_with_such_a_proxy_configuration(
    release: Path, config: str | None
) -> None:
    code, output = run_guard(release, config=config)
    assert code == 78
    assert "proxy_config.yaml" in output
