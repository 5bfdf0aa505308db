"""Wanted + found -> changes, each with its reason. Pure."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from optictl import render
from optictl.config import Config
from optictl.host.files import FileFacts
from optictl.host.systemd import Unit
from optictl.paths import NAME, Paths
from optictl.render import Host

Action = Literal[
    "create", "replace", "mode", "build", "switch", "reload", "enable", "start", "restart", "stop", "disable", "remove"
]


@dataclass(frozen=True)
class Artefact:
    """A file that a deployment consists of.

    `keep`: made once and never overwritten, it is the operator's. `secret`: its text is
    shown nowhere. `directory`: an empty one, without text.
    """

    path: Path
    text: str
    mode: int
    keep: bool = False
    secret: bool = False
    directory: bool = False


@dataclass(frozen=True)
class Found:
    """What stands at an artefact's path now."""

    facts: FileFacts
    text: str | None


@dataclass(frozen=True)
class Change:
    """One step of a plan: what is done to which target, why, and the difference it makes."""

    action: Action
    target: str
    reason: str
    diff: str = ""
    artefact: Artefact | None = None

    def as_dict(self) -> dict[str, str]:
        return {"action": self.action, "target": self.target, "reason": self.reason, "diff": self.diff}


def operators_files(config_text: str, config: Config, paths: Paths, proxy_key: str) -> list[Artefact]:
    """What `init` makes and nobody ever overwrites."""
    return [
        Artefact(paths.config, config_text, 0o644, keep=True),
        Artefact(paths.env, render.env(config), 0o600, keep=True, secret=True),
        Artefact(paths.proxy_key, proxy_key + "\n", 0o600, keep=True, secret=True),
    ]


def rendered_files(config: Config, paths: Paths, host: Host) -> list[Artefact]:
    """What follows from the configuration and the facts of the machine."""
    relay = [
        Artefact(paths.root_directory, "", 0o755, directory=True),
        Artefact(paths.upstream_socket, render.upstream_socket(config), 0o644),
        Artefact(paths.upstream_service, render.upstream_service(config), 0o644),
    ]
    return [
        Artefact(paths.proxy_config, render.proxy_config(config), 0o644),
        *(relay if render.is_sealed(config, paths) else []),
        Artefact(paths.socket, render.socket(config, paths), 0o644),
        Artefact(paths.service, render.unit(config, paths, host), 0o644),
    ]


def _diff(artefact: Artefact, old: str | None) -> str:
    if artefact.secret:
        return "(secret, not shown)"
    lines = difflib.unified_diff(
        (old or "").splitlines(keepends=True),
        artefact.text.splitlines(keepends=True),
        "/dev/null" if old is None else str(artefact.path),
        str(artefact.path),
    )
    return "".join(lines)


def _mode(artefact: Artefact, facts: FileFacts) -> Change:
    mode = facts.mode & artefact.mode if artefact.keep else artefact.mode
    reason = f"its mode is {facts.mode:04o}, not {mode:04o}"
    return Change("mode", str(artefact.path), reason, "", replace(artefact, mode=mode))


def change(artefact: Artefact, found: Found, uid: int) -> Change | None:
    """The change that makes a path what it should be, or None. `uid` is who deploys."""
    target, facts = str(artefact.path), found.facts
    if facts.kind == "missing":
        return Change("create", target, "it is missing", _diff(artefact, None), artefact)
    if artefact.keep:
        # the operator's: a link to a secret store stays one, and what was closed further stays closed
        if facts.kind == "file" and facts.mode & ~artefact.mode:
            return _mode(artefact, facts)
        return None
    if artefact.directory and facts.kind == "directory":
        return None
    if facts.kind != "file":
        what = {"link": "a link", "directory": "a directory"}.get(facts.kind, "something that is no file")
        return Change("replace", target, f"{what} stands there", _diff(artefact, None), artefact)
    if found.text != artefact.text:
        return Change(
            "replace", target, "it differs from what the configuration asks for", _diff(artefact, found.text), artefact
        )
    if facts.uid != uid:
        return Change("replace", target, f"it belongs to uid {facts.uid}, not {uid}", "", artefact)
    if facts.mode != artefact.mode:
        return _mode(artefact, facts)
    return None


def changes(
    artefacts: list[Artefact], found: dict[Path, Found], uid: int, *, release: str, built: bool, current: str | None
) -> list[Change]:
    """A whole installation's steps, in the order in which they are applied.

    The release is built and proven before anything in force is touched, and switched to
    last. `release` is the wanted release's id, `current` the one in force.
    """
    steps = []
    if not built:
        steps.append(Change("build", release, "this release is not on this machine yet"))
    steps += [c for a in artefacts if (c := change(a, found[a.path], uid)) is not None]
    if current != release:
        reason = "no release is in force" if current is None else f"{current} is in force"
        steps.append(Change("switch", release, reason))
    return steps


def supervision(changes: list[Change], paths: Paths, wanted: list[str], found: dict[str, Unit]) -> list[Change]:
    """What systemd has to do after these changes, so that the service runs what is on disk.

    `wanted` are the units to enable, the service last; `found` what systemd says of them now.
    """
    service, socket = wanted[-1], wanted[-2]
    touched = {c.target for c in changes if c.action in ("create", "replace")}
    unit_files = {str(p) for p in (paths.service, paths.socket, paths.upstream_service, paths.upstream_socket)}
    steps = []
    if touched & unit_files or any(unit.need_daemon_reload == "yes" for unit in found.values()):
        steps.append(Change("reload", "systemd", "unit files changed"))
    if any(found[name].unit_file_state != "enabled" for name in wanted):
        steps.append(Change("enable", " ".join(wanted), "they would not start at boot"))
    if not (found[service].active and found[socket].active):
        steps.append(Change("start", service, "it does not run"))
    elif str(paths.socket) in touched:
        steps.append(Change("restart", socket, "its unit changed: connections are refused until it listens again"))
    elif any(c.action == "switch" for c in changes) or touched & {str(paths.service), str(paths.proxy_config)}:
        steps.append(Change("restart", service, "what it reads has changed; a sibling serves meanwhile"))
    return steps


def removal(paths: Paths, existing: list[Path], supervised: bool) -> list[Change]:
    """The steps that take away exactly these paths, which optictl made."""
    steps = []
    if supervised:
        steps += [Change("stop", NAME, "it is to be removed"), Change("disable", NAME, "it is to be removed")]
    steps += [Change("remove", str(path), "optictl made it") for path in existing]
    if supervised:
        steps.append(Change("reload", "systemd", "unit files were removed"))
    return steps
