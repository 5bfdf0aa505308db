"""A deployment's service as a child process: exactly what the unit would start."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from optictl.deployment import render
from optictl.deployment.config import Config
from optictl.deployment.paths import NAME
from optictl.errors import NotReady
from optictl.guard import envfile
from optictl.host import network, processes

#: A guarded OptiLLM sends it with every answer.
GUARD_HEADER = "x-optillm-guard"
#: OptiLLM takes 2 to 11 s to start on a small machine.
READY_SECONDS = 90


def environment(home: Path, upstream_key: str) -> dict[str, str]:
    """All that the service may find in its environment."""
    return {**_base_environment(home), "OPENAI_API_KEY": upstream_key}


def unit_environment(
    home: Path, variables: Mapping[str, str], *, by_reference: bool
) -> dict[str, str]:
    """What the unit gives the service, whose env file holds these variables: they win over its own Environment=.

    `by_reference`: the guard reads OPENAI_API_KEY from a credential, so that the unit takes it out (UnsetEnvironment=).
    """
    kept = {
        name: value
        for name, value in variables.items()
        if not (by_reference and name == "OPENAI_API_KEY")
    }
    return {**_base_environment(home), **kept}


def _base_environment(home: Path) -> dict[str, str]:
    return {"HOME": str(home), "PYTHONUNBUFFERED": "1", "PATH": "/usr/bin:/bin"}


@contextmanager
def running(
    config: Config,
    release: Path,
    home: Path,
    *,
    proxy_key: str,
    upstream_key: str,
    output: IO[bytes] | None,
    user: str = NAME,
    scratch: Path | None = None,
    flags: Sequence[str] = (),
) -> Iterator[subprocess.Popen[bytes]]:
    """The guarded OptiLLM of `release` in a clean environment, never as root; it is told to stop when the block ends.

    `output` takes what it logs (None: this process's own streams). `user` is who it is when root
    starts it. `scratch`: where its key lies meanwhile; `flags`: those that its guard knows.
    """
    identity = processes.service_identity(user)
    with processes.credentials(
        {"proxy_key": f"{proxy_key}\n".encode()}, identity, scratch
    ) as secrets:
        command = render.command(config, release, f"@{secrets}/proxy_key", flags=flags)
        with _process(
            config, command, environment(home, upstream_key), release, output, identity
        ) as process:
            yield process


@contextmanager
def running_as_unit(
    config: Config,
    release: Path,
    home: Path,
    *,
    proxy_key: bytes,
    env_file: bytes,
    user: str = NAME,
    flags: Sequence[str] = (),
) -> Iterator[subprocess.Popen[bytes]]:
    """The same with all that the unit gives it, so that its guard refuses what it refuses there; it logs to the terminal.

    `proxy_key` and `env_file` are what those files hold, bytes for bytes.
    """
    identity = processes.service_identity(user)
    # the guard of an older release takes the key from the environment, as its unit gives it
    by_reference = not flags or "--upstream-env" in flags
    variables = unit_environment(home, envfile.read(env_file).variables, by_reference=by_reference)
    with processes.credentials(
        {"proxy_key": proxy_key, "upstream_env": env_file}, identity
    ) as secrets:
        own = ("--upstream-env", f"@{secrets}/upstream_env")
        command = render.command(config, release, f"@{secrets}/proxy_key", *own, flags=flags)
        with _process(config, command, variables, release, None, identity) as process:
            yield process


@contextmanager
def _process(
    config: Config,
    command: Sequence[str],
    variables: dict[str, str],
    release: Path,
    output: IO[bytes] | None,
    identity: processes.Identity,
) -> Iterator[subprocess.Popen[bytes]]:
    process = processes.start(command, variables, release / "work", output, identity)
    try:
        yield process
    finally:
        processes.stop(process, config.timeouts.drain + render.STOP_GRACE)


def health_problem(config: Config, timeout: float = 10) -> str:
    """What came in place of the guard's own 200 to GET /health, or ""; `timeout` in seconds."""
    answer = network.request(
        "GET", f"http://{config.listen.host}:{config.listen.port}/health", timeout=timeout
    )
    if answer.status == 200 and GUARD_HEADER in answer.headers:
        return ""
    return answer.error or str(answer.status)


def wait_ready(process: subprocess.Popen[bytes], config: Config, log: Path) -> None:
    """Until the guard answers on the port, or OptictlError with the end of its log."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise NotReady(
                f"OptiLLM ended with code {process.returncode} instead of starting",
                detail=_tail(log),
            )
        if not health_problem(config, timeout=1):
            return
        time.sleep(0.1)
    raise NotReady(f"OptiLLM was not ready after {READY_SECONDS} s", detail=_tail(log))


def _tail(log: Path) -> str:
    """What the log says about an end: the guard's own words where there are some, else its last lines."""
    lines = log.read_text(errors="replace").splitlines()
    telling = [line for line in lines if '"event": "crashed"' in line or "refused to start" in line]
    return "\n".join(telling or lines[-8:])
