"""OptiLLM and LiteLLM, each with the other's address: ports are chosen before either starts.

Both take many seconds to start. One LiteLLM serves all modules; OptiLLMs start side by side:
`optillm` returns at once, `litellm` when it answers, and `ready` waits for the rest.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from testing import support

#: LiteLLM's master key: what clients show it, and what OptiLLM must show it.
MASTER_KEY = "sk-litellm-test-master-key"
#: What LiteLLM puts before the name of an upstream's header when it hands it on.
PREFIX = "llm_provider-"

_questions = itertools.count(1)


@dataclass
class OptiLLM(support.Server):
    """An OptiLLM, guarded or bare, that was told its port."""

    port: int

    def passes(self) -> list[dict[str, Any]]:
        """The guard's journal lines about requests at its door, let in or refused, in order."""
        whole, _, _ = self.journal().rpartition("\n")  # the last line may be half written
        lines = [json.loads(text) for text in whole.splitlines() if text.startswith("{")]
        return [line for line in lines if line.get("event") in ("request", "refused")]

    def bare_passes(self) -> int:
        """How many completions OptiLLM without the guard was asked for, by its own log."""
        return self.journal().count("Received request to /v1/chat/completions")


@dataclass
class LiteLLM:
    """A running LiteLLM proxy."""

    port: int
    process: subprocess.Popen[bytes]
    log: Path

    def ask(
        self, model: str, text: str | None = None, *, timeout: float = 60, **fields: Any
    ) -> httpx.Response:
        """What a client sends: one chat completion, with LiteLLM's master key.

        The text is a new one unless given: the guard tells conversations apart by what they say.
        """
        text = text or f"What is 2 + 2? This is question {next(_questions)}."
        body = {"model": model, "messages": [{"role": "user", "content": text}], **fields}
        headers = {"Authorization": f"Bearer {MASTER_KEY}"}
        return httpx.post(
            f"{base_url(self.port)}/chat/completions", json=body, headers=headers, timeout=timeout
        )


@dataclass(frozen=True)
class Ports:
    """Where a module's OptiLLMs and the model behind LiteLLM listen, known before they start."""

    optillms: Mapping[str, int]
    model: int

    @property
    def model_url(self) -> str:
        return base_url(self.model)


@dataclass(frozen=True)
class Entrance:
    """The LiteLLM that every module is reached through, and the ports that it knows, by module."""

    litellm: LiteLLM
    ports: Mapping[str, Ports]


def base_url(port: int) -> str:
    return f"http://127.0.0.1:{port}/v1"


def strategy_entry(name: str, port: int, target: str | None = None) -> dict[str, Any]:
    """LiteLLM's model `name`, which is `target` (default: the same name) at the OptiLLM on `port`.

    As `optictl render litellm` prints it, without retries, each of which would repeat a whole
    strategy; but with LiteLLM's cooldown after a failure.
    """
    return {
        "model_name": name,
        "litellm_params": {
            "model": f"custom_openai/{target or name}",
            "api_base": base_url(port),
            "api_key": support.PROXY_KEY,
            "allowed_openai_params": ["user"],
            "num_retries": 0,
            "max_retries": 0,
        },
    }


def model_entry(name: str, url: str, **parameters: Any) -> dict[str, Any]:
    """LiteLLM's model `name` at the OpenAI-compatible server `url`."""
    parameters = {"model": f"openai/{name}", "api_base": url, "api_key": "any", **parameters}
    return {"model_name": name, "litellm_params": parameters}


def mocked_entry(name: str, text: str) -> dict[str, Any]:
    """LiteLLM's model `name`, answered by LiteLLM itself."""
    return {
        "model_name": name,
        "litellm_params": {"model": f"openai/{name}", "api_key": "none", "mock_response": text},
    }


def configuration(models: Sequence[dict[str, Any]], **sections: Any) -> dict[str, Any]:
    return {"model_list": list(models), "general_settings": {"master_key": MASTER_KEY}, **sections}


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and its children: SIGTERM, and SIGKILL to what is left of its group."""
    support.stop(process)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _start(
    command: Sequence[str], environment: Mapping[str, str], cwd: Path, log: Path
) -> subprocess.Popen[bytes]:
    # setsid: a group of its own, so that _end reaches the children and nobody else
    return support.spawn(["setsid", *command], dict(environment), cwd, log)


@contextmanager
def litellm(
    program: Path, config: dict[str, Any], port: int, env: Mapping[str, str] | None = None
) -> Iterator[LiteLLM]:
    """LiteLLM on `port` with this configuration, ready to answer; its children end with it."""
    with support.open_directory() as directory:
        home = directory / "home"
        home.mkdir()
        home.chmod(0o777)
        path = directory / "config.yaml"
        path.write_text(yaml.safe_dump(config))
        path.chmod(0o644)
        # the map of prices that it would otherwise fetch is in the package too
        variables = {
            "HOME": str(home),
            "PATH": "/usr/bin:/bin",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            **(env or {}),
        }
        log = directory / "log"
        command = [str(program), "--config", str(path), "--host", "127.0.0.1", "--port", str(port)]
        process = _start(command, variables, home, log)
        try:
            _wait(process, f"http://127.0.0.1:{port}/health/liveliness", log)
            yield LiteLLM(port, process, log)
        finally:
            _end(process)


def _wait(process: subprocess.Popen[bytes], url: str, log: Path, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            if httpx.get(url, timeout=1).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError(
        f"LiteLLM is not ready (exit code {process.poll()}):\n"
        f"{log.read_text(errors='replace')[-3000:]}"
    )


@contextmanager
def optillm(
    release: Path,
    upstream_port: int,
    *,
    port: int,
    guard: bool = True,
    approach: str = "proxy",
    base_models: Sequence[str] = ("jerry-xl",),
    upstream_key: str = MASTER_KEY,
) -> Iterator[OptiLLM]:
    """OptiLLM on `port` in front of the LiteLLM on `upstream_port`; see `ready`."""
    url = base_url(upstream_port)
    with support.open_directory() as directory:
        home, key_file = support.prepare_home(directory, support.proxy_config(url))
        if guard:
            flags = support.guard_arguments(url, port, approach=approach, base_models=base_models)
            command = [str(release / ".venv/bin/python"), "-I", str(release / "guard")]
            command += [flag.replace("@KEYFILE", f"@{key_file}") for flag in flags]
        else:
            command = [
                str(release / ".venv/bin/optillm"),
                "--host",
                "127.0.0.1",
                "--port",
                str(port),
                "--base-url",
                url,
                "--model",
                base_models[0],
                "--optillm-api-key",
                support.PROXY_KEY,
            ]
            # "auto" is what it does without the flag; the flag does not take it
            command += [] if approach == "auto" else ["--approach", approach]
        log = directory / "log"
        process = _start(
            command, {"HOME": str(home), "OPENAI_API_KEY": upstream_key}, release / "work", log
        )
        try:
            yield OptiLLM(
                url=base_url(port),
                key=support.PROXY_KEY,
                process=process,
                log=log,
                home=home,
                port=port,
            )
        finally:
            _end(process)


def ready(*servers: OptiLLM) -> None:
    """Until each of them answers."""
    for server in servers:
        support.wait_ready(server.process, server.port, server.log)


def ask_at_once(
    proxy: LiteLLM, models: Sequence[str], text: str | None = None
) -> list[httpx.Response]:
    """Ask all these models in the same moment; the answers in the order of the models."""
    with ThreadPoolExecutor(len(models)) as pool:
        return list(pool.map(lambda model: proxy.ask(model, text), models))


def facts(response: httpx.Response) -> dict[str, str]:
    """The guard's `x-optillm-*` headers, as they arrive through LiteLLM; without that prefix."""
    start = f"{PREFIX}x-optillm-"
    return {
        name.removeprefix(start): value
        for name, value in response.headers.items()
        if name.startswith(start)
    }


def settled(count: Callable[[], int], seconds: float = 2) -> int:
    """The count after it was watched for so long; polls, so that a growing one fails at once."""
    first = count()
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        now = count()
        assert now == first, f"the count grew from {first} to {now} after the request had ended"
        time.sleep(0.1)
    return first


def error_of(response: httpx.Response) -> dict[str, Any]:
    """The error in OpenAI's shape, of an answer that must be one."""
    error = response.json()["error"]
    assert isinstance(error["message"], str)
    assert error["message"]
    return dict(error)
