"""The facts that checks judge: a deployment and the processes on its port, each read once."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from optictl.deployment import model_names
from optictl.deployment.config import Config
from optictl.deployment.paths import Paths
from optictl.errors import ConfigError, MissingFact, NotApplicable, OptictlError
from optictl.facts import config_file
from optictl.facts import units as facts_units
from optictl.facts.litellm import LiteLLM
from optictl.guard import envfile, fingerprints, health_probe
from optictl.guard.envfile import EnvFile
from optictl.host import files, network, processes, uv
from optictl.host.network import Response
from optictl.host.processes import Listener, Process
from optictl.host.systemd import Systemd, Unit
from optictl.proof.trial import GUARD_HEADER
from optictl.releases import release_record, store
from optictl.releases.release_record import ReleaseRecord
from optictl.takeover import reader
from optictl.takeover.handmade import HandMade
from optictl.takeover.proposal import propose

#: The check that reports a service that optictl did not install.
MANAGED = "unit.managed"


@dataclass(frozen=True)
class Live:
    """The processes that hold a listening socket on the service's port."""

    listening: list[Listener]
    processes: list[Process]

    @property
    def pids(self) -> str:
        return ", ".join(str(p.pid) for p in self.processes)


class Deployment:
    """Facts of one deployment. A fact that cannot be read raises MissingFact with the reason.

    `litellm_config` and `litellm_env` override the files of LiteLLM that the configuration names.
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
        self._litellm_files = litellm_config, litellm_env

    @cached_property
    def hand_made(self) -> HandMade | None:
        """The installed service, if optictl did not install it.

        The other facts then describe it.
        """
        return reader.read(self.paths)

    def require_managed(self) -> None:
        """Raise MissingFact if optictl did not install the service."""
        if self.hand_made is not None:
            raise MissingFact(f"optictl did not install the service: see {MANAGED}")

    @property
    def is_alone(self) -> bool:
        """Whether faults are root causes by themselves: a hand-made service shows each of them."""
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
        """The file with OPENAI_API_KEY that the service reads, even if it does not exist."""
        own = self.hand_made.env_file if self.hand_made is not None else None
        return own or self.paths.env

    @property
    def proxy_config(self) -> Path:
        """The file that OptiLLM's proxy plugin reads, even if it does not exist."""
        if self.hand_made is None:
            return self.paths.proxy_config
        home = self.hand_made.environment.get("HOME") or "/nonexistent"
        return self.hand_made.provider_config or Path(home) / ".optillm" / "proxy_config.yaml"

    def _refuse_denied(self) -> None:
        """Raise PermissionError if a file of a hand-made service is unreadable."""
        if self.hand_made is not None and self.hand_made.denied:
            raise PermissionError(
                errno.EACCES, os.strerror(errno.EACCES), str(self.hand_made.denied[0])
            )

    @cached_property
    def env_read(self) -> EnvFile:
        """The env file as systemd passes it to the service."""
        content = files.read_bytes(self.env_file)
        if content is None:
            raise MissingFact(f"{self.env_file} does not exist")
        return envfile.read(content)

    @property
    def env(self) -> dict[str, str]:
        """The variables of the env file.

        For a hand-made service, those of its unit and env files.
        """
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
            raise MissingFact(f"{self.paths.proxy_key} does not exist")
        return text.strip()

    @cached_property
    def release(self) -> Path:
        """The directory of the active release."""
        self.require_managed()
        return self.paths.releases / store.require_active(self.paths)

    @cached_property
    def release_record(self) -> ReleaseRecord:
        """The record of the active release."""
        record = release_record.read(self.release)
        if record is None:
            raise MissingFact(f"{self.release / release_record.FILE} is missing or damaged")
        return record

    @cached_property
    def units(self) -> dict[str, Unit]:
        """This deployment's units as systemd knows them."""
        units = facts_units.read_units(self.paths)
        if units is None:
            raise NotApplicable("this deployment is not managed by systemd")
        return units

    @cached_property
    def manager_environment(self) -> list[str]:
        """The names of the variables that systemd gives to every service of this scope."""
        return Systemd(self.paths.scope).environment() if self.units else []

    @property
    def install(self) -> str:
        """The command that restores every artefact and the release, and restarts what needs it."""
        return self.take_over or self.paths.command("install")

    @property
    def take_over(self) -> str:
        """The commands that replace a hand-made service by a deployment; "" if there is none."""
        if self.hand_made is None:
            return ""
        return f"{self.paths.command('init')}, then {self.paths.command('install --force')}"

    @property
    def restore(self) -> str:
        """Like `install`, but also overwrites edited files; it keeps a backup."""
        return self.take_over or self.paths.command("install --force")

    @property
    def start(self) -> str:
        """The command that starts the deployment's service."""
        if self.hand_made is not None:
            return self._systemctl("start")
        return self.paths.command("start" if self.supervised else "run")

    @property
    def restart(self) -> str:
        """The command after which the service has read its files again, however it was started."""
        if self.hand_made is not None:
            return self._systemctl("restart")
        main = self._main
        if self.supervised and (main is None or self._is_own(main)):
            return self.paths.command("restart")
        return self.start if main is None else f"{self.end(main)} && {self.start}"

    def _systemctl(self, verb: str) -> str:
        """The systemctl command for a hand-made service."""
        flags = "--user " if self.paths.scope == "user" else ""
        return f"systemctl {flags}{verb} {self.paths.service_unit}"

    @property
    def rebuild(self) -> str:
        """The command that makes the process match the deployment: a restart, or the take-over."""
        return self.take_over or self.restart

    def without(self, pid: int) -> str:
        """The command that stops this process from serving.

        A restart if it is the deployment's own.
        """
        if self.hand_made is not None and self._is_own(pid):
            return self.take_over
        return self.restart if pid == self._main or self._is_own(pid) else self.end(pid)

    def _is_own(self, pid: int) -> bool:
        units = (self.paths.service_unit, self.paths.sibling_unit)
        return self.supervised and (
            pid == self.units[self.paths.service_unit].main_pid
            or processes.service_of(pid) in units
        )

    def end(self, pid: int) -> str:
        """The command that ends a process permanently."""
        unit = processes.service_of(pid)
        if unit is None:
            return f"kill {pid} && tail --pid={pid} -f /dev/null"
        # systemd would restart a killed process; a transient unit cannot be disabled
        transient = Systemd("system").show(unit).fragment_path.startswith("/run/systemd/transient/")
        return f"systemctl stop {unit}" if transient else f"systemctl disable --now {unit}"

    @property
    def supervised(self) -> bool:
        """Whether systemd manages this deployment."""
        try:
            return bool(self.units)
        except MissingFact:
            return False

    @property
    def _main(self) -> int | None:
        """The process to end to free the port: the oldest one, the parent of the others."""
        return (
            min((p.pid for p in self.live.processes), key=processes.started_at)
            if self.is_live
            else None
        )

    @property
    def own_process(self) -> int | None:
        """The process that serves a release of this deployment, None if there is none."""
        try:
            serving = self.live.processes
        except MissingFact:
            return None
        directories = {files.identity(path) for path in self.paths.releases.glob("*/work")}
        own = [process.pid for process in serving if process.directory in directories]
        return min(own, key=processes.started_at) if own else None

    @cached_property
    def live(self) -> Live:
        """The processes that serve the port now, however they were started."""
        port = self.config.listen.port
        listening = [socket for socket in processes.listeners() if socket.port == port]
        if not listening:
            raise MissingFact(f"nothing listens on port {port}")
        pids = processes.owners({socket.inode for socket in listening})
        serving = [p for p in map(processes.read_process, sorted(pids)) if p is not None]
        if not serving:
            if os.geteuid() != 0:
                raise MissingFact(
                    f"port {port} belongs to another user's process: run it with sudo"
                )
            raise MissingFact(f"no process serves port {port} yet: only systemd holds its socket")
        return Live(listening, serving)

    @property
    def is_live(self) -> bool:
        """Whether a process serves the port."""
        try:
            return bool(self.live.processes)
        except MissingFact:
            return False

    @cached_property
    def serving(self) -> Live | None:
        """The processes that serve the port, if they are the active release behind its guard."""
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

    def ask(
        self,
        path: str,
        *,
        key: str | None = None,
        timeout: float = 5,
        headers: Mapping[str, str] = {},
    ) -> Response:
        """The service's answer to a GET request."""
        base = f"http://{self.config.listen.host}:{self.config.listen.port}"
        return network.request("GET", base + path, key=key, timeout=timeout, headers=headers)

    @cached_property
    def without_key(self) -> Response:
        """The service's answer to a request without a key.

        It has a mark with which the guard does not log the refusal, if the proxy key is readable.
        """
        try:
            marked = {health_probe.HEADER: health_probe.mark(self.proxy_key)}
        except (MissingFact, PermissionError):
            marked = {}
        return self.ask("/v1/models", timeout=10, headers=marked)

    @cached_property
    def health(self) -> Response:
        return self.ask("/health")

    @cached_property
    def models(self) -> Response:
        """The service's answer to /v1/models with the proxy key; the service asks LiteLLM."""
        return self.ask("/v1/models", key=self.proxy_key, timeout=10)

    @cached_property
    def upstream_models(self) -> Response:
        """LiteLLM's answer to /v1/models with OPENAI_API_KEY."""
        return network.request(
            "GET", f"{self.config.upstream.base_url}/models", key=self.upstream_key, timeout=5
        )

    @property
    def memory(self) -> int:
        """Bytes of private memory of the processes that serve the port, without mapped files."""
        return sum(
            use.memory
            for use in filter(None, (processes.resource_use(p.pid) for p in self.live.processes))
        )

    @cached_property
    def litellm(self) -> LiteLLM:
        """The facts about this deployment's LiteLLM."""
        return LiteLLM(
            self.config,
            self.config_path,
            *self._litellm_files,
            lambda: self.upstream_key,
            self.strategy_words,
        )

    @cached_property
    def strategy_words(self) -> frozenset[str]:
        """The words that OptiLLM reads as strategies: those of the active release.

        Without a release, those that optictl knows.
        """
        try:
            packages = uv.site_packages(self.release / ".venv")
        except OptictlError:
            return model_names.WORDS
        return (packages and fingerprints.words(packages)) or model_names.WORDS
