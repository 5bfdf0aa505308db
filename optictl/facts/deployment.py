"""The facts that checks judge: one deployment and the process that serves its port, each read once."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from optictl.deployment.config import Config
from optictl.deployment.paths import Paths
from optictl.errors import ConfigError, MissingFact, OptictlError
from optictl.facts import config_file
from optictl.facts import units as facts_units
from optictl.guard import envfile
from optictl.guard.envfile import EnvFile
from optictl.host import files, network, processes
from optictl.host.network import Response
from optictl.host.processes import Listener, Process
from optictl.host.systemd import Systemd, Unit
from optictl.proof import evidence
from optictl.proof.trial import GUARD_HEADER
from optictl.releases import store
from optictl.takeover import reader
from optictl.takeover.handmade import HandMade
from optictl.takeover.proposal import propose

if TYPE_CHECKING:
    from optictl.litellm.graph import Graph
    from optictl.litellm.read import Settings

#: The check that says of a hand-made service that it is one.
MANAGED = "unit.managed"


@dataclass(frozen=True)
class Live:
    """What serves the port: every process that holds a listening socket on it."""

    listening: list[Listener]
    processes: list[Process]

    @property
    def pids(self) -> str:
        return ", ".join(str(p.pid) for p in self.processes)


@dataclass(frozen=True)
class Routing:
    """LiteLLM's routing as configured (None: no configuration was named) and as it runs (None: it does not tell).

    `live` says in words what the running one told.
    """

    configured: Graph | None
    running: Graph | None
    live: str


class Deployment:
    """Facts of one deployment. A fact that cannot be had raises MissingFact with the reason.

    `litellm_config` and `litellm_env` name LiteLLM's own files, instead of those that the configuration names.
    """

    def __init__(
        self,
        paths: Paths,
        config_path: Path | None = None,
        litellm_config: Path | None = None,
        litellm_env: Path | None = None,
    ) -> None:
        self.paths = paths
        self.config_path = config_path or paths.config
        self._litellm = litellm_config, litellm_env

    @cached_property
    def hand_made(self) -> HandMade | None:
        """The service that stands here and is not optictl's; then the other facts are that one's."""
        return reader.read(self.paths)

    def require_managed(self) -> None:
        """Raise MissingFact where the service is not optictl's: what only a deployment has cannot be judged."""
        if self.hand_made is not None:
            raise MissingFact(f"the unit is not optictl's: see {MANAGED}")

    @property
    def is_alone(self) -> bool:
        """Whether a fault stands for itself: of a hand-made service each has to be seen, not only that it is one."""
        return self.hand_made is not None

    @cached_property
    def config(self) -> Config:
        try:
            config = config_file.load(self.config_path)
        except (ConfigError, OptictlError):
            raise MissingFact("the configuration is not valid: see config.valid") from None
        return (
            config if self.hand_made is None else propose(self.hand_made, self.paths).over(config)
        )

    @property
    def env_file(self) -> Path:
        """The file with OPENAI_API_KEY that the service reads, or would read."""
        own = self.hand_made.env_file if self.hand_made is not None else None
        return own or self.paths.env

    @property
    def proxy_config(self) -> Path:
        """The file that OptiLLM's proxy plugin reads, or would read."""
        if self.hand_made is None:
            return self.paths.proxy_config
        home = self.hand_made.environment.get("HOME") or "/nonexistent"
        return self.hand_made.provider_config or Path(home) / ".optillm" / "proxy_config.yaml"

    def _refuse_denied(self) -> None:
        """Raise PermissionError where a file of a hand-made service may not be read: a fact may be missing."""
        if self.hand_made is not None and self.hand_made.denied:
            raise PermissionError(
                errno.EACCES, os.strerror(errno.EACCES), str(self.hand_made.denied[0])
            )

    @cached_property
    def env_read(self) -> EnvFile:
        """The env file as the service gets it."""
        content = files.read_bytes(self.env_file)
        if content is None:
            raise MissingFact(f"there is no {self.env_file}")
        return envfile.read(content)

    @property
    def env(self) -> dict[str, str]:
        """The variables of the env file; of a hand-made service all that its unit and its files set."""
        if self.hand_made is not None:
            self._refuse_denied()
            return {
                name: value
                for name, value in self.hand_made.environment.items()
                if name in self.hand_made.where
            }
        return self.env_read.variables

    @cached_property
    def upstream_key(self) -> str:
        key = self.env.get("OPENAI_API_KEY", "").strip()
        if not key:
            raise MissingFact("OPENAI_API_KEY is not set: see env.upstream-key")
        return key

    @cached_property
    def proxy_key(self) -> str:
        if self.hand_made is not None:
            self._refuse_denied()
            return self.hand_made.proxy_key
        text = files.read(self.paths.proxy_key)
        if text is None:
            raise MissingFact(f"there is no {self.paths.proxy_key}")
        return text.strip()

    @cached_property
    def release(self) -> Path:
        """The directory of the release in force."""
        self.require_managed()
        release = store.active_release(self.paths)
        if release is None:
            raise MissingFact(
                f"no release is in force at {self.paths.current}: run {self.paths.command('install')}"
            )
        return self.paths.releases / release

    @cached_property
    def units(self) -> dict[str, Unit]:
        """What systemd knows of this deployment's units."""
        units = facts_units.facts(self.paths)
        if units is None:
            raise MissingFact("systemd has no say in this deployment")
        return units

    @cached_property
    def manager_environment(self) -> list[str]:
        """The names of the variables that systemd gives to every service of this deployment's scope."""
        return Systemd(self.paths.scope).environment() if self.units else []

    @property
    def install(self) -> str:
        """The command that puts every artefact and the release in order, and restarts what has to be."""
        return self.take_over or self.paths.command("install")

    @property
    def take_over(self) -> str:
        """The commands that make a deployment of a hand-made service; "" where there is none."""
        if self.hand_made is None:
            return ""
        return f"{self.paths.command('init')}, then {self.paths.command('install --force')}"

    @property
    def restore(self) -> str:
        """The same, also where a file was edited; the old text is kept beside it."""
        return self.take_over or self.paths.command("install --force")

    @property
    def start(self) -> str:
        """The command that starts the deployment's service."""
        if self.hand_made is not None:
            return self._systemctl("start")
        return self.paths.command("start" if self.supervised else "run")

    @property
    def restart(self) -> str:
        """The command after which the service has read its files anew, whoever runs it now."""
        if self.hand_made is not None:
            return self._systemctl("restart")
        main = self._main
        if self.supervised and (main is None or self._is_own(main)):
            return self.paths.command("restart")
        return self.start if main is None else f"{self._end(main)} && {self.start}"

    def _systemctl(self, verb: str) -> str:
        """The command by which systemd does something to a hand-made service."""
        flags = "--user " if self.paths.scope == "user" else ""
        return f"systemctl {flags}{verb} {self.paths.service_unit}"

    @property
    def rebuild(self) -> str:
        """The command that brings the process to what the deployment is: a restart; of a hand-made one the take-over."""
        return self.take_over or self.restart

    def without(self, pid: int) -> str:
        """The command after which this process does not serve any more: the restart, where it is the deployment's own."""
        if self.hand_made is not None and self._is_own(pid):
            return self.take_over
        return self.restart if pid == self._main or self._is_own(pid) else self._end(pid)

    def _is_own(self, pid: int) -> bool:
        units = (self.paths.service_unit, self.paths.sibling_unit)
        return self.supervised and (
            pid == self.units[self.paths.service_unit].main_pid
            or processes.service_of(pid) in units
        )

    def _end(self, pid: int) -> str:
        """The command that ends a process for good."""
        unit = processes.service_of(pid)
        if unit is None:
            return f"kill {pid} && tail --pid={pid} -f /dev/null"
        # killed, it would come back; systemd refuses to disable what nobody wrote to a disk
        transient = Systemd("system").show(unit).fragment_path.startswith("/run/systemd/transient/")
        return f"systemctl stop {unit}" if transient else f"systemctl disable --now {unit}"

    @property
    def supervised(self) -> bool:
        """Whether systemd runs this deployment."""
        try:
            return bool(self.units)
        except MissingFact:
            return False

    @property
    def _main(self) -> int | None:
        """The process to be told when what serves the port has to go: the oldest, which is the others' parent."""
        return (
            min((p.pid for p in self.live.processes), key=processes.started_at)
            if self.is_live
            else None
        )

    @cached_property
    def live(self) -> Live:
        """What serves the port now, however it was started."""
        port = self.config.listen.port
        listening = [one for one in processes.listeners() if one.port == port]
        if not listening:
            raise MissingFact(f"nothing listens on port {port}")
        pids = processes.owners({one.inode for one in listening})
        found = [p for p in map(processes.read_process, sorted(pids)) if p is not None]
        if not found:
            if os.geteuid() != 0:
                raise MissingFact(
                    f"port {port} belongs to another user's process: run it with sudo"
                )
            raise MissingFact(f"no process serves port {port} yet: only systemd holds its socket")
        return Live(listening, found)

    @property
    def is_live(self) -> bool:
        """Whether anything serves the port."""
        try:
            return bool(self.live.processes)
        except MissingFact:
            return False

    @cached_property
    def serving(self) -> Live | None:
        """What serves the port, if that is the release in force behind its guard; else None."""
        try:
            live, work = self.live, files.identity(self.release / "work")
        except MissingFact:
            return None
        ours = all(p.directory == work for p in live.processes)
        return (
            live
            if ours and self.health.status == 200 and GUARD_HEADER in self.health.headers
            else None
        )

    def ask(self, path: str, *, key: str | None = None, timeout: float = 5) -> Response:
        """GET a path of the proxy."""
        base = f"http://{self.config.listen.host}:{self.config.listen.port}"
        return network.request("GET", base + path, key=key, timeout=timeout)

    @cached_property
    def health(self) -> Response:
        return self.ask("/health")

    @cached_property
    def models(self) -> Response:
        """The proxy's /v1/models, asked with the key: it asks LiteLLM in turn."""
        return self.ask("/v1/models", key=self.proxy_key, timeout=10)

    @cached_property
    def upstream_models(self) -> Response:
        """LiteLLM's own /v1/models, asked with OPENAI_API_KEY."""
        return network.request(
            "GET", f"{self.config.upstream.base_url}/models", key=self.upstream_key, timeout=5
        )

    @property
    def memory(self) -> int:
        """Bytes that the processes that serve the port hold and that are no file's."""
        return sum(
            use.memory
            for use in filter(None, (processes.resource_use(p.pid) for p in self.live.processes))
        )

    @property
    def litellm_config(self) -> Path | None:
        """LiteLLM's configuration file; relative to optictl.yaml where that names it."""
        named = self.config.litellm.config
        return self._litellm[0] or (self.config_path.parent / named if named else None)

    @property
    def unnamed_litellm(self) -> str:
        """The reason where LiteLLM's configuration was not named, and how to name it."""
        return f"no configuration of LiteLLM is named: --litellm-config PATH, or litellm.config in {self.config_path}"

    @cached_property
    def _litellm_environment(self) -> dict[str, str] | None:
        named = self.config.litellm.env
        path = self._litellm[1] or (self.config_path.parent / named if named else None)
        if path is None:
            return None
        content = files.read_bytes(path)
        if content is None:
            raise MissingFact(f"there is no {path}, which is named as LiteLLM's environment")
        return envfile.shell_variables(content)

    @cached_property
    def _litellm_read(self) -> tuple[Settings | None, list[str]]:
        from optictl.litellm import read  # YAML, which most commands need not load

        path = self.litellm_config
        if path is None:
            return None, []
        try:
            return read.load(
                str(path), lambda name: files.read(Path(name)), self._litellm_environment
            ), []
        except read.Unusable as unusable:
            return None, unusable.problems
        except PermissionError:
            raise
        except (OSError, ValueError) as error:
            return None, [f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}"]

    @property
    def litellm_problems(self) -> list[str]:
        """Why LiteLLM would not start with its configuration, with the place of each reason."""
        return self._litellm_read[1]

    @cached_property
    def routing(self) -> Routing:
        """LiteLLM's routing around this deployment."""
        from optictl.litellm import graph, read

        if self.litellm_problems:
            raise MissingFact("LiteLLM's configuration cannot be used: see routing.no-loop")
        settings = self._litellm_read[0]
        names = network.local_names()
        configured = graph.Graph(settings, self.config, names) if settings else None
        rows, live = self._litellm_rows
        running = (settings or read.Settings()).running(rows, self.config.upstream.base_url)
        return Routing(
            configured,
            graph.Graph(running, self.config, names) if running.entries else None,
            live,
        )

    @cached_property
    def _litellm_rows(self) -> tuple[list[object], str]:
        """The deployments of the running LiteLLM, and in words what it told."""
        base_url = self.config.upstream.base_url
        try:
            key = self.upstream_key
        except (MissingFact, PermissionError):
            return [], "the running LiteLLM was not asked: there is no key for it"
        answer = network.request("GET", f"{base_url}/model/info", key=key, timeout=5)
        if answer.status in (401, 403):
            return [], f"the running LiteLLM does not tell its models to this key ({answer.status})"
        rows = answer.data.get("data") if isinstance(answer.data, dict) else None
        if answer.status != 200 or not isinstance(rows, list):
            return (
                [],
                f"the running LiteLLM did not tell its models: {evidence.error_message(answer)}",
            )
        return rows, f"{len(rows)} entries of the running LiteLLM judged too"
