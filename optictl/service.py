"""A deployment's service as a child process: exactly what the unit would start."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from optictl import render
from optictl.config import Config
from optictl.errors import OptictlError
from optictl.host import network, processes
from optictl.paths import NAME

#: OptiLLM takes 2 to 11 s to start on a small machine.
READY_SECONDS = 90


def environment(home: Path, upstream_key: str) -> dict[str, str]:
    """All that the service may find in its environment."""
    return {"HOME": str(home), "OPENAI_API_KEY": upstream_key, "PYTHONUNBUFFERED": "1", "PATH": "/usr/bin:/bin"}


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
    """The guarded OptiLLM of `release`, never as root; it is told to stop when the block ends.

    `output` takes what it logs (None: this process's own streams). `user` is who it is when root
    starts it. `scratch`: where its key lies meanwhile; `flags`: those that its guard knows.
    """
    identity = processes.service_identity(user)
    with processes.credential(proxy_key, identity, scratch) as key_file:
        command = render.command(config, release, f"@{key_file}", flags=flags)
        process = processes.start(command, environment(home, upstream_key), release / "work", output, identity)
        try:
            yield process
        finally:
            processes.stop(process, config.timeouts.drain + render.STOP_GRACE)


def wait_ready(process: subprocess.Popen[bytes], config: Config, log: Path) -> None:
    """Until the guard answers on the port, or OptictlError with the end of its log."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise OptictlError(f"OptiLLM ended with code {process.returncode} instead of starting", detail=_tail(log))
        answer = network.request("GET", f"http://{config.listen.host}:{config.listen.port}/health", timeout=1)
        if answer.status == 200 and "x-optillm-guard" in answer.headers:
            return
        time.sleep(0.1)
    raise OptictlError(f"OptiLLM was not ready after {READY_SECONDS} s", detail=_tail(log))


def _tail(log: Path) -> str:
    """What the log says about an end: the guard's own words where there are some, else its last lines."""
    lines = log.read_text(errors="replace").splitlines()
    telling = [line for line in lines if '"event": "crashed"' in line or "refused to start" in line]
    return "\n".join(telling or lines[-8:])
