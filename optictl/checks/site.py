"""The facts that checks judge: one deployment and the process that serves its port, each read once."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from optictl import loading, releases
from optictl.checks.registry import Skip
from optictl.config import Config, ConfigError
from optictl.errors import OptictlError
from optictl.guard import invariants
from optictl.host import files, network, processes
from optictl.host.network import Answer
from optictl.host.processes import Listener, Process
from optictl.paths import Paths

#: A guarded OptiLLM sends it with every answer.
GUARD_HEADER = "x-optillm-guard"


@dataclass(frozen=True)
class Live:
    """What serves the port: every process that holds a listening socket on it."""

    listening: list[Listener]
    processes: list[Process]

    @property
    def pids(self) -> str:
        return ", ".join(str(p.pid) for p in self.processes)


class Site:
    """Facts of one deployment. A fact that cannot be had raises Skip with the reason."""

    def __init__(self, paths: Paths, config_path: Path | None = None) -> None:
        self.paths = paths
        self.config_path = config_path or paths.config

    @cached_property
    def config(self) -> Config:
        try:
            return loading.load(self.config_path)
        except (ConfigError, OptictlError):
            raise Skip("the configuration is not valid: see config.valid") from None

    @cached_property
    def env(self) -> dict[str, str]:
        """The variables of the env file."""
        text = files.read(self.paths.env)
        if text is None:
            raise Skip(f"there is no {self.paths.env}")
        return invariants.variables(text)

    @cached_property
    def upstream_key(self) -> str:
        key = self.env.get("OPENAI_API_KEY", "").strip()
        if not key:
            raise Skip("OPENAI_API_KEY is not set: see env.upstream-key")
        return key

    @cached_property
    def proxy_key(self) -> str:
        text = files.read(self.paths.proxy_key)
        if text is None:
            raise Skip(f"there is no {self.paths.proxy_key}")
        return text.strip()

    @cached_property
    def release(self) -> Path:
        """The directory of the release in force."""
        release = releases.in_force(self.paths)
        if release is None:
            raise Skip(f"no release is in force at {self.paths.current}: run {self.paths.command('install')}")
        return self.paths.releases / release

    @property
    def ours(self) -> str:
        """The remedy for a process that is not the one optictl starts."""
        return f"stop it and start the service that optictl installs ({self.paths.command('run')})"

    @cached_property
    def live(self) -> Live:
        """What serves the port now, however it was started."""
        port = self.config.listen.port
        listening = [one for one in processes.listeners() if one.port == port]
        if not listening:
            raise Skip(f"nothing listens on port {port}")
        pids = processes.owners({one.inode for one in listening})
        found = [p for p in map(processes.look, sorted(pids)) if p is not None]
        if not found:
            if os.geteuid() != 0:
                raise Skip(f"port {port} belongs to another user's process: run it with sudo")
            raise Skip(f"no process serves port {port} yet: only systemd holds its socket")
        return Live(listening, found)

    @cached_property
    def serving(self) -> Live | None:
        """What serves the port, if that is the release in force behind its guard; else None."""
        try:
            live, work = self.live, files.identity(self.release / "work")
        except Skip:
            return None
        ours = all(p.directory == work for p in live.processes)
        return live if ours and self.health.status == 200 and GUARD_HEADER in self.health.headers else None

    def ask(self, path: str, *, key: str | None = None, timeout: float = 5) -> Answer:
        """GET a path of the proxy."""
        base = f"http://{self.config.listen.host}:{self.config.listen.port}"
        return network.request("GET", base + path, key=key, timeout=timeout)

    @cached_property
    def health(self) -> Answer:
        return self.ask("/health")

    @cached_property
    def models(self) -> Answer:
        """The proxy's /v1/models, asked with the key: it asks LiteLLM in turn."""
        return self.ask("/v1/models", key=self.proxy_key, timeout=10)

    @cached_property
    def upstream_models(self) -> Answer:
        """LiteLLM's own /v1/models, asked with OPENAI_API_KEY."""
        return network.request("GET", f"{self.config.upstream.base_url}/models", key=self.upstream_key, timeout=10)
