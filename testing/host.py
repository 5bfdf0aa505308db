"""A booted machine with optictl and one deployment on it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from optictl.proof.standin import Reply, Seen, StandIn
from testing.machine import Machine
from testing.support import PROXY_KEY, UPSTREAM_KEY, free_port

ETC, OPT = "/etc/optillm-proxy", "/opt/optillm-proxy"

#: An OptiLLM plugin, for another release: PyDLL does not release the GIL during a call.
HANG = '''\
"""Hangs the whole interpreter."""
import ctypes

SLUG = "hang"


def run(system_prompt, initial_query, client, model):
    ctypes.PyDLL(None).sleep(1000)
    return "never", 0
'''


@dataclass
class Host:
    """A machine with optictl, a deployment's ports, and the upstream that stands for LiteLLM."""

    machine: Machine
    program: Path
    port: int
    upstream: StandIn

    def optictl(
        self, *arguments: str, check: bool = True, timeout: float = 300
    ) -> subprocess.CompletedProcess[str]:
        return self.machine.run(self.program, *arguments, check=check, timeout=timeout)

    def mend(self, remedy: str) -> None:
        """Type what a check told to type; every question is answered with yes."""
        words = remedy.replace(", then ", " && ").replace("; ", " && ")
        self.machine.run(
            "env",
            "OPTICTL_YES=1",
            f"PATH={self.program.parent}:/usr/sbin:/usr/bin",
            "sh",
            "-c",
            words,
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, model: str = "bon-jerry-xl", timeout: float = 60) -> httpx.Response:
        body = {"model": model, "messages": [{"role": "user", "content": "hello"}]}
        headers = {"Authorization": f"Bearer {PROXY_KEY}"}
        return httpx.post(
            f"{self.url}/v1/chat/completions", json=body, headers=headers, timeout=timeout
        )

    def configure(self, extra: str = "", drain: int = 20, request: int = 60) -> None:
        """The operator's files, as they should be."""
        self.machine.run("mkdir", "-p", ETC)
        self.machine.write(
            f"{ETC}/optictl.yaml",
            f"listen: {{port: {self.port}}}\nupstream: {{base_url: '{self.upstream.base_url}'}}\n"
            f"timeouts: {{request: {request}, drain: {drain}}}\n{extra}",
        )
        self.machine.write(f"{ETC}/env", f"OPENAI_API_KEY={UPSTREAM_KEY}\n", 0o600)
        self.machine.write(f"{ETC}/proxy_key", f"{PROXY_KEY}\n", 0o600)

    def uninstall(self, *options: str) -> None:
        """Uninstall, then put the releases back: the next installation need not build them."""
        self.machine.run("cp", "-al", f"{OPT}/releases", "/opt/kept")
        self.optictl("uninstall", "--yes", *options)
        self.machine.run("test", "!", "-e", OPT)
        self.machine.run("sh", "-c", f"mkdir {OPT} && mv /opt/kept {OPT}/releases")

    def renew(self) -> None:
        """Put a module's deployment in order: as configured, running, with no restarts counted."""
        self.configure()
        # it may have been removed
        self.machine.run("systemctl", "restart", "optillm-proxy.service", check=False)
        self.optictl("install", "--yes")


@contextmanager
def installed(
    machine: Machine, program: Path, respond: Callable[[Seen], Reply | None] | None = None
) -> Iterator[Host]:
    """A deployment that runs on a machine. `respond`: what its upstream answers, else at once."""
    with StandIn(key=UPSTREAM_KEY, respond=respond).running() as upstream:
        host = Host(machine, program, free_port(), upstream)
        host.configure()
        # as on a hardened host: what root makes there is closed to others
        host.machine.run("sh", "-c", f"umask 077 && exec {program} install --yes", timeout=300)
        yield host
