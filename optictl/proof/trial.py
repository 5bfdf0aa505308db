"""The one way to start a release as a child process: with the command and the environment that
its unit gives it.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from optictl.deployment import render
from optictl.deployment.config import Config
from optictl.deployment.paths import NAME
from optictl.errors import NotReady
from optictl.guard import envfile
from optictl.host import files, network, processes

#: A guarded OptiLLM sends it with every answer.
GUARD_HEADER = "x-optillm-guard"
#: OptiLLM takes 2 to 11 s to start on a small machine.
READY_SECONDS = 90


@dataclass(frozen=True)
class Secrets:
    """The content of the files `proxy_key` and `env` of a deployment, byte for byte."""

    proxy_key: bytes
    env_file: bytes

    @classmethod
    def of(cls, proxy_key: str, upstream_key: str) -> Secrets:
        """Those of a proof, which has no such files."""
        env_file = f"OPENAI_API_KEY={upstream_key}\n"
        return cls(f"{proxy_key}\n".encode(), env_file.encode())

    def __repr__(self) -> str:
        return "Secrets(...)"


@dataclass(frozen=True)
class RunningRelease:
    """A release that answers on its port. `log` has what it wrote."""

    process: subprocess.Popen[bytes]
    config: Config
    log: Path

    @property
    def url(self) -> str:
        """Where it serves the API, with /v1."""
        return self.config.url


@contextmanager
def started(
    config: Config,
    release: Path,
    secrets: Secrets,
    *,
    home: Path | None = None,
    log: Path | None = None,
    scratch_parent: Path | None = None,
    user: str = NAME,
    flags: Sequence[str] = (),
) -> Iterator[RunningRelease]:
    """Start a release; the block gets it when it answers, and it is stopped afterwards.

    `config` names the port, a free one for a proof. `home` is its HOME; without one it gets a
    private HOME with the provider file. `log` takes what it writes; without one a scratch file
    does. The scratch directory is below `scratch_parent`. `user` and `flags` are as for `running`.

    Raises:
        OptictlError: it did not become ready; the error quotes the end of its log.
    """
    with files.scratch(parent=scratch_parent) as scratch:
        log = log or scratch / "log"
        with (
            log.open("wb") as output,
            running(
                config,
                release,
                home or _private_home(config, scratch),
                secrets,
                output=output,
                user=user,
                scratch_parent=scratch_parent,
                flags=flags,
            ) as process,
        ):
            wait_ready(process, config, log)
            yield RunningRelease(process, config, log)


def _private_home(config: Config, scratch: Path) -> Path:
    home = scratch / "home"
    files.make_directory(home / ".optillm")
    files.write(home / ".optillm" / "proxy_config.yaml", render.proxy_config(config), 0o644)
    return home


@contextmanager
def running(
    config: Config,
    release: Path,
    home: Path,
    secrets: Secrets,
    *,
    output: IO[bytes] | None,
    user: str = NAME,
    scratch_parent: Path | None = None,
    flags: Sequence[str] = (),
    deployment: str = NAME,
) -> Iterator[subprocess.Popen[bytes]]:
    """The process of a release, with all that the unit gives it; it is stopped when the block ends.

    The environment holds what the unit's holds, and the guard refuses what it refuses there. Root
    starts it as `user`. `output` takes what it logs (None: this process's streams). The secrets are
    in files below `scratch_parent`. `flags` are those that its guard knows; none: all.
    `deployment` is the name in its metrics.
    """
    identity = processes.service_identity(user)
    # the guard of an older release takes the key from the environment, as its unit gives it
    by_reference = not flags or "--upstream-env" in flags
    variables = envfile.read(secrets.env_file).variables
    environment = unit_environment(home, variables, by_reference=by_reference)
    contents = {"proxy_key": secrets.proxy_key, "upstream_env": secrets.env_file}
    with processes.credentials(contents, identity, scratch_parent) as credentials:
        own = ("--upstream-env", f"@{credentials}/upstream_env", "--deployment", deployment)
        command = render.command(config, release, f"@{credentials}/proxy_key", *own, flags=flags)
        process = processes.start(command, environment, release / "work", output, identity)
        try:
            yield process
        finally:
            processes.stop(process, config.timeouts.drain + render.STOP_GRACE)


def environment(home: Path, upstream_key: str) -> dict[str, str]:
    """The environment of an OptiLLM without a guard, which has the key in it."""
    return {**_base_environment(home), "OPENAI_API_KEY": upstream_key}


def unit_environment(
    home: Path, variables: Mapping[str, str], *, by_reference: bool
) -> dict[str, str]:
    """What the unit gives the service, whose env file holds these variables: they win over its
    Environment=.

    `by_reference`: the guard reads OPENAI_API_KEY from a credential, so that the unit takes it out
    (UnsetEnvironment=).
    """
    kept = {
        name: value
        for name, value in variables.items()
        if not (by_reference and name == "OPENAI_API_KEY")
    }
    return {**_base_environment(home), **kept}


def _base_environment(home: Path) -> dict[str, str]:
    return {"HOME": str(home), "PYTHONUNBUFFERED": "1", "PATH": "/usr/bin:/bin"}


def health_problem(config: Config, timeout: float = 10) -> str:
    """What came in place of the guard's own 200 to GET /health, or ""; `timeout` in seconds."""
    answer = network.request(
        "GET", f"http://{config.listen.host}:{config.listen.port}/health", timeout=timeout
    )
    if answer.status == 200 and GUARD_HEADER in answer.headers:
        return ""
    return answer.error or str(answer.status)


def wait_ready(process: subprocess.Popen[bytes], config: Config, log: Path) -> None:
    """Return when the guard answers on the port.

    Raises:
        OptictlError: the process ended, or it did not become ready in time; with the end of its
            log.
    """
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
    """What the log says about an end: the guard's own lines where there are some, else its last
    lines.
    """
    lines = log.read_text(errors="replace").splitlines()
    telling = [line for line in lines if '"event": "crashed"' in line or "refused to start" in line]
    return "\n".join(telling or lines[-8:])
