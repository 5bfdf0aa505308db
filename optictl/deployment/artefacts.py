"""The files of a deployment: path, text and mode of each. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from optictl.deployment import render
from optictl.deployment.config import Config
from optictl.deployment.paths import Paths
from optictl.deployment.render import Host


@dataclass(frozen=True)
class Artefact:
    """A file of a deployment.

    `keep`: the operator edits it; optictl creates it once and never overwrites it. `secret`:
    optictl never shows its text. `directory`: an empty directory. `link`: a symbolic link; `text`
    is its target.
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
    """The files that `init` creates and that optictl never overwrites."""
    return [
        Artefact(paths.config, config_text, 0o644, keep=True),
        Artefact(paths.env, render.env(config), 0o600, keep=True, secret=True),
        Artefact(paths.proxy_key, proxy_key + "\n", 0o600, keep=True, secret=True),
    ]


def rendered_files(config: Config, paths: Paths, host: Host) -> list[Artefact]:
    """The files that follow from the configuration and the machine, in the order to write them.

    The unit comes after the files that it uses: its rename activates all of them.
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
        # for people only: the service reads the file in its HOME
        Artefact(paths.home / ".optillm", f"{home.name}/.optillm", 0o777, link=True),
    ]


def monitoring_files(config: Config, paths: Paths, host: Host) -> list[Artefact]:
    """The units that check the deployment every minute. Empty without monitoring or systemd."""
    if not config.monitoring.timer or paths.is_private:
        return []
    return [
        Artefact(paths.check_service, render.check_service(config, paths, host), 0o644),
        Artefact(paths.check_timer, render.check_timer(paths), 0o644),
    ]
