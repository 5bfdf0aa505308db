"""The files of a deployment: where each stands, what it holds, who may read it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from optictl.deployment import render
from optictl.deployment.config import Config
from optictl.deployment.paths import Paths
from optictl.deployment.render import Host


@dataclass(frozen=True)
class Artefact:
    """A file that a deployment consists of.

    `keep`: made once and never overwritten, it is the operator's. `secret`: its text is
    shown nowhere. `directory`: an empty one, without text. `link`: a symbolic link, its text the target.
    """

    path: Path
    text: str
    mode: int
    keep: bool = False
    secret: bool = False
    directory: bool = False
    link: bool = False


def operators_files(
    config_text: str, config: Config, paths: Paths, proxy_key: str
) -> list[Artefact]:
    """What `init` makes and nobody ever overwrites."""
    return [
        Artefact(paths.config, config_text, 0o644, keep=True),
        Artefact(paths.env, render.env(config), 0o600, keep=True, secret=True),
        Artefact(paths.proxy_key, proxy_key + "\n", 0o600, keep=True, secret=True),
    ]


def rendered_files(config: Config, paths: Paths, host: Host) -> list[Artefact]:
    """What follows from the configuration and the facts of the machine, in the order in which it is written.

    What is only read together with the unit comes before it, so that the unit's rename is the step that counts.
    """
    home = render.home(config, paths)
    relay = [
        Artefact(paths.root_directory, "", 0o755, directory=True),
        Artefact(paths.upstream_socket, render.upstream_socket(config, paths), 0o644),
        Artefact(paths.upstream_service, render.upstream_service(config, paths, host), 0o644),
    ]
    return [
        Artefact(home / ".optillm" / "proxy_config.yaml", render.proxy_config(config), 0o644),
        *(relay if render.is_sealed(config, paths) else []),
        Artefact(paths.socket, render.socket(config, paths), 0o644),
        Artefact(paths.service, render.unit(config, paths, host), 0o644),
        # for people: the service itself reads below its own HOME
        Artefact(paths.home / ".optillm", f"{home.name}/.optillm", 0o777, link=True),
    ]


def monitoring_files(config: Config, paths: Paths, host: Host) -> list[Artefact]:
    """The units that check the deployment every minute, where that is asked for and there is a systemd to do it."""
    if not config.monitoring.timer or paths.is_private:
        return []
    return [
        Artefact(paths.check_service, render.check_service(config, paths, host), 0o644),
        Artefact(paths.check_timer, render.check_timer(paths), 0o644),
    ]
