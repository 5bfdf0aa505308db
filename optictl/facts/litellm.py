"""Facts about LiteLLM: its configuration files and the entries of a running LiteLLM."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from optictl.deployment import model_names
from optictl.deployment.config import Config
from optictl.errors import MissingFact
from optictl.guard import envfile
from optictl.host import files, network
from optictl.proof import evidence

if TYPE_CHECKING:
    from optictl.litellm.graph import Graph
    from optictl.litellm.read import Settings


class NotUtf8(Exception):
    """A file that LiteLLM cannot read. `str()` is its path."""


def _text(name: str) -> str | None:
    """The text of one of LiteLLM's files, as LiteLLM reads it. None when there is no file."""
    raw = files.read_bytes(Path(name))
    try:
        return None if raw is None else raw.decode("utf-8")
    except UnicodeDecodeError:
        raise NotUtf8(name) from None


@dataclass(frozen=True)
class Routing:
    """LiteLLM's routing as configured and as it runs.

    `configured` is None without a named configuration; `running` is None if the running LiteLLM
    does not list its entries. `live` says in words what the running LiteLLM answered.
    """

    configured: Graph | None
    running: Graph | None
    live: str


class LiteLLM:
    """The facts about the LiteLLM of one deployment, each read once.

    `config_file` and `env_file` override the files that the configuration names. A relative name
    in the configuration is relative to optictl.yaml (`config_path`). `words`: those that OptiLLM
    reads as strategies.
    """

    def __init__(
        self,
        config: Config,
        config_path: Path,
        config_file: Path | None,
        env_file: Path | None,
        upstream_key: Callable[[], str],
        words: Collection[str] = model_names.WORDS,
    ) -> None:
        self._config, self._words = config, words
        self._config_path = config_path
        self._upstream_key = upstream_key
        self.config_file = config_file or self._named(config.litellm.config)
        self.env_file = env_file or self._named(config.litellm.env)

    def _named(self, name: str | None) -> Path | None:
        return self._config_path.parent / name if name else None

    @property
    def own_environment(self) -> Mapping[str, str]:
        """The environment of this process, which may be the one of LiteLLM."""
        return os.environ

    @property
    def not_named(self) -> str:
        """The reason for a skip if no configuration of LiteLLM is named, and how to name one."""
        return (
            "no LiteLLM configuration is named: use --litellm-config PATH, "
            f"or set litellm.config in {self._config_path}"
        )

    @property
    def problems(self) -> list[str]:
        """Why LiteLLM would not start with its configuration, each with its place in the file."""
        return self._read[1]

    @cached_property
    def routing(self) -> Routing:
        """LiteLLM's routing around this deployment."""
        from optictl.litellm import graph, read

        if self.problems:
            raise MissingFact("LiteLLM's configuration cannot be read: see routing.no-loop")
        settings = self._read[0]
        around = (
            self._config,
            network.local_names(),
            self._words,
            network.names_of(self._config.listen.host),
        )
        configured = graph.Graph(settings, *around) if settings else None
        rows, live = self._rows
        running = (settings or read.Settings()).running(rows, self._config.upstream.base_url)
        return Routing(
            configured,
            graph.Graph(running, *around) if running.entries else None,
            live,
        )

    @cached_property
    def version(self) -> str:
        """The version that the running LiteLLM reports.

        Raises:
            MissingFact: it does not answer, or it reports no version.
        """
        root = self._config.upstream.base_url.removesuffix("/").removesuffix("/v1")
        try:
            key = self._upstream_key()
        except (MissingFact, PermissionError):
            key = None
        # the first needs no key; an old LiteLLM has only the second, which needs none there
        paths = ["/public/model_hub/info", "/health/readiness"]
        requests: list[tuple[str, str | None]] = [(path, None) for path in paths]
        requests += [("/health/readiness/details", key)] if key else []
        for path, sent in requests:
            answer = network.request("GET", f"{root}{path}", key=sent, timeout=4)
            if not answer.status:
                raise MissingFact(f"LiteLLM at {root} does not answer: {answer.error}")
            data = answer.data if isinstance(answer.data, dict) else {}
            if isinstance(version := data.get("litellm_version"), str):
                return version
        raise MissingFact(f"the server at {root} reports no version of LiteLLM")

    @cached_property
    def _environment(self) -> dict[str, str] | None:
        if self.env_file is None:
            return None
        content = files.read_bytes(self.env_file)
        if content is None:
            raise MissingFact(f"LiteLLM's env file {self.env_file} does not exist")
        return envfile.shell_variables(content)

    @cached_property
    def _read(self) -> tuple[Settings | None, list[str]]:
        """The settings (None without a usable configuration) and the problems of the file."""
        from optictl.litellm import read  # loads YAML, which most commands do not need

        path = self.config_file
        if path is None:
            return None, []
        try:
            settings = read.load(str(path), _text, self._environment)
        except read.Unusable as unusable:
            return None, unusable.problems
        except NotUtf8 as wrong:
            return None, [f"{wrong}: not UTF-8 text, which LiteLLM cannot read"]
        except PermissionError:
            raise
        except (OSError, ValueError) as error:
            return None, [f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}"]
        return settings, []

    @cached_property
    def _rows(self) -> tuple[list[object], str]:
        """The entries of the running LiteLLM, and what it answered in words."""
        base_url = self._config.upstream.base_url
        try:
            key = self._upstream_key()
        except (MissingFact, PermissionError):
            return [], "the running LiteLLM was not asked: there is no key for it"
        answer = network.request("GET", f"{base_url}/model/info", key=key, timeout=5)
        if answer.status in (401, 403):
            return (
                [],
                f"the running LiteLLM does not list its models for this key ({answer.status})",
            )
        rows = answer.data.get("data") if isinstance(answer.data, dict) else None
        if answer.status != 200 or not isinstance(rows, list):
            message = evidence.error_message(answer)
            return [], f"the running LiteLLM did not list its models: {message}"
        return rows, f"{len(rows)} entries of the running LiteLLM checked too"
