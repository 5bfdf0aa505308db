"""What the guard will not start with: exit 78, and one line that names the reason and no secret."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from optictl.guard.invariants import FORBIDDEN
from testing.support import (
    PROXY_KEY,
    UPSTREAM_KEY,
    free_port,
    guard_arguments,
    open_directory,
    prepare_home,
    proxy_config,
    run_guard,
)

pytestmark = pytest.mark.slow

URL = "http://127.0.0.1:4000/v1"
SECRET = "value-that-must-not-be-printed"


def assert_refused(outcome: tuple[int, str], reason: str, *secrets: str) -> None:
    code, output = outcome
    assert code == 78, output
    told = [line for line in output.splitlines() if line.strip() and not line.startswith("{")]
    assert len(told) == 1, output
    assert told[0].startswith("optillm-guard: refused to start: ")
    assert reason in told[0], told[0]
    for secret in (PROXY_KEY, UPSTREAM_KEY, SECRET, *secrets):
        assert secret not in output


def flags(**changes: str) -> list[str]:
    """The guard's arguments with some of them replaced: `host="0.0.0.0"` sets --host."""
    arguments = guard_arguments(URL, free_port())
    for name, value in changes.items():
        arguments[arguments.index("--" + name.replace("_", "-")) + 1] = value
    return arguments


@pytest.mark.parametrize(
    "name",
    [*sorted(FORBIDDEN), "https_proxy", "OPTILLM_APPROACH", "OPTILLM_LOG", "OPTILLM_PLUGINS_DIR"],
)
def test_a_forbidden_variable(release: Path, name: str) -> None:
    assert_refused(run_guard(release, environment={name: SECRET}), f"{name} is set")


@pytest.mark.parametrize("value", ["", "   "])
def test_no_upstream_key(release: Path, value: str) -> None:
    assert_refused(
        run_guard(release, environment={"OPENAI_API_KEY": value}), "OPENAI_API_KEY is missing"
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (
            f"export OPENAI_API_KEY={SECRET}\n".encode(),
            "refused to start: the env file, line 1 (OPENAI_API_KEY): systemd ignores",
        ),
        (
            f"OPENAI_API_KEY={SECRET}\nA=\u00e9\n".encode("latin-1"),
            "refused to start: the env file, line 2 (A): it is not UTF-8",
        ),
        (
            f"OPENAI_API_KEY={SECRET}\nexport HTTP_PROXY=x\n".encode(),
            "refused to start: the env file, line 2 (HTTP_PROXY): systemd",
        ),
        (b"OPENAI_API_KEY=\n", "refused to start: OPENAI_API_KEY is missing"),
        (None, "refused to start: cannot read a key from "),
    ],
)
def test_an_env_file_that_is_not_read_as_it_is_meant(
    release: Path, content: bytes | None, reason: str
) -> None:
    with open_directory() as directory:
        if content is not None:
            (directory / "env").write_bytes(content)
        outcome = run_guard(release, arguments=[*flags(), "--upstream-env", f"@{directory}/env"])
    assert_refused(outcome, reason)
    assert ("is missing" in outcome[1]) == (content == b"OPENAI_API_KEY=\n")


def test_an_env_file_is_given_by_reference(release: Path) -> None:
    outcome = run_guard(release, arguments=[*flags(), "--upstream-env", f"OPENAI_API_KEY={SECRET}"])
    assert_refused(outcome, "use @FILE for the env file")


@pytest.mark.parametrize("host", ["0.0.0.0", "localhost", "::"])
def test_a_bind_address_that_is_not_127_0_0_1(release: Path, host: str) -> None:
    assert_refused(
        run_guard(release, arguments=flags(host=host)), f"--host {host} is not 127.0.0.1"
    )


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("https://api.openai.com/v1", "does not point at this machine"),
        ("http://192.168.1.2:4000/v1", "does not point at this machine"),
        ("http://127.0.0.1:4000", "must end in /v1"),
    ],
)
def test_an_upstream_that_may_not_be(release: Path, url: str, reason: str) -> None:
    assert_refused(run_guard(release, url), f"--base-url {reason}")


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("short-key-123", "is shorter than"),
        ("ab" * 20, "has fewer than 8 different characters"),
        ("sk-" + "0123456789abcdefghij" * 2, "begins with sk-"),
        ("", "is empty"),
    ],
)
def test_a_weak_proxy_key(release: Path, key: str, reason: str) -> None:
    # an empty secret is in every text
    assert_refused(run_guard(release, key=key), f"the proxy key {reason}", *([key] if key else []))


def test_the_upstream_key_as_proxy_key(release: Path) -> None:
    outcome = run_guard(release, environment={"OPENAI_API_KEY": PROXY_KEY})
    assert_refused(outcome, "is the same as OPENAI_API_KEY")


def test_a_literal_key_on_the_command_line(release: Path) -> None:
    outcome = run_guard(release, arguments=flags(optillm_api_key=SECRET))
    assert_refused(outcome, "use @FILE for a key")


@pytest.mark.parametrize("path", ["/nonexistent/key", "/root", "/dev/null/key"])
def test_a_key_file_that_cannot_be_read(release: Path, path: str) -> None:
    outcome = run_guard(release, arguments=flags(optillm_api_key=f"@{path}"))
    assert_refused(outcome, f"cannot read a key from {path}")


def test_a_key_file_that_is_not_text(release: Path) -> None:
    with open_directory() as directory:
        path = directory / "key"
        path.write_bytes(b"\xff\xfe" * 20)
        outcome = run_guard(release, arguments=flags(optillm_api_key=f"@{path}"))
    assert_refused(outcome, "it is not UTF-8 text")


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (None, "is missing"),
        ("providers: [", "is not valid YAML"),
        ("routing: {}", "has no provider"),
        (proxy_config("https://api.openai.com/v1"), "is not the upstream"),
        (proxy_config(URL).replace("${OPENAI_API_KEY}", SECRET), "does not take its key from"),
        (
            proxy_config(URL).replace(
                "routing:",
                "  - name: second\n"
                "    base_url: https://api.openai.com/v1\n"
                "    api_key: '${OPENAI_API_KEY}'\n"
                "routing:",
            ),
            "has 2 providers",
        ),
    ],
)
def test_a_proxy_configuration_that_may_not_be(
    release: Path, config: str | None, reason: str
) -> None:
    outcome = run_guard(release, config=config)
    assert_refused(outcome, reason)
    assert "proxy_config.yaml" in outcome[1]


def test_the_proxy_configuration_does_not_matter_without_the_proxy(release: Path) -> None:
    # a reason of another kind makes it end; the file is not among them
    code, output = run_guard(release, config=None, approach="auto", environment={"OPTILLM_N": "2"})
    assert code == 78
    assert "proxy_config" not in output


def test_every_reason_at_once(release: Path) -> None:
    outcome = run_guard(
        release,
        "http://10.0.0.1/v1",
        config=None,
        key="short",
        environment={"CEREBRAS_API_KEY": SECRET},
    )
    for reason in (
        "CEREBRAS_API_KEY is set",
        "--base-url does not",
        "the proxy key is shorter",
        "proxy_config.yaml is missing",
    ):
        assert_refused(outcome, reason)


@pytest.mark.parametrize("base_model", ["proxy-large", "moa-x", "a&b-c"])
def test_a_base_model_that_optillm_would_mangle(release: Path, base_model: str) -> None:
    assert_refused(
        run_guard(release, base_models=[base_model]),
        f"the base model {base_model} begins with a strategy or has & or |: rename",
    )


def test_a_second_base_model_is_judged_as_well(release: Path) -> None:
    assert_refused(
        run_guard(release, base_models=["jerry-xl", "bon-small"]),
        "the base model bon-small begins with a strategy or has & or |: rename",
    )


@pytest.mark.root
def test_root(release: Path) -> None:
    assert os.getuid() == 0, "this test runs the guard as root"
    with open_directory() as directory:
        home, key_file = prepare_home(directory, proxy_config(URL))
        arguments = [a.replace("@KEYFILE", f"@{key_file}") for a in flags()]
        command = [str(release / ".venv/bin/python"), "-I", str(release / "guard"), *arguments]
        environment = {"HOME": str(home), "OPENAI_API_KEY": UPSTREAM_KEY}
        done = subprocess.run(
            command,
            env=environment,
            cwd=release / "work",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert_refused((done.returncode, done.stdout + done.stderr), "runs as root")
