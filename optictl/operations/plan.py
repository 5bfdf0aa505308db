"""Wanted + found -> changes, each with its reason. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from optictl.deployment.artefacts import Artefact
from optictl.deployment.manifest import Manifest
from optictl.deployment.paths import Paths
from optictl.facts.installed_files import Found
from optictl.facts.units import Running
from optictl.host.files import FileFacts

Action = Literal[
    "create",
    "replace",
    "mode",
    "owner",
    "build",
    "canary",
    "trial",
    "switch",
    "reload",
    "enable",
    "start",
    "sibling",
    "restart",
    "aside",
    "handover",
    "stop",
    "disable",
    "configure",
    "remove",
    "restore",
]


@dataclass(frozen=True)
class Change:
    """One step of a plan: what is done to which target, why, and the difference it makes.

    `edited`: somebody else's text is there, which is not touched unless that was asked for. `cleanup`: it takes
    away what nothing needs any more, once everything else is done and seen to be good.
    """

    action: Action
    target: str
    reason: str
    diff: str = ""
    artefact: Artefact | None = None
    edited: bool = False
    cleanup: bool = False

    def as_dict(self) -> dict[str, Any]:
        words = {
            "action": self.action,
            "target": self.target,
            "reason": self.reason,
            "diff": self.diff,
        }
        return {**words, "edited": True} if self.edited else words


def _diff(artefact: Artefact, old: str | None) -> str:
    if artefact.secret:
        return "(secret, not shown)"
    if artefact.link or artefact.directory:
        return ""
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


_KINDS = {"link": "a link", "directory": "a directory", "file": "a file"}


def change(artefact: Artefact, found: Found, uid: int, manifest: Manifest) -> Change | None:
    """The change that makes a path what it should be, or None. `uid` is who deploys."""
    target, facts = str(artefact.path), found.facts
    if facts.kind == "missing":
        return Change("create", target, "it is missing", _diff(artefact, None), artefact)
    if artefact.keep:
        # the operator's: a link to a secret store stays one, what was closed further stays closed, root may own all of it
        if facts.kind == "file" and facts.uid not in (0, uid):
            kept = replace(artefact, mode=facts.mode & artefact.mode)
            return Change("owner", target, f"it belongs to uid {facts.uid}, not {uid}", "", kept)
        if facts.kind == "file" and facts.mode & ~artefact.mode:
            return _mode(artefact, facts)
        return None
    wanted = "directory" if artefact.directory else "link" if artefact.link else "file"
    if facts.kind != wanted:
        what = _KINDS.get(facts.kind, "something that is no file")
        return Change(
            "replace", target, f"{what} stands there", _diff(artefact, None), artefact, edited=True
        )
    if artefact.directory:
        return None
    if found.text != artefact.text:
        if manifest.wrote(target, found.text):
            reason, edited = "it differs from what the configuration asks for", False
        else:
            known = target in manifest.files
            reason, edited = (
                "it was edited since optictl wrote it" if known else "optictl did not write it",
                True,
            )
        return Change("replace", target, reason, _diff(artefact, found.text), artefact, edited)
    if facts.uid != uid:
        return Change("replace", target, f"it belongs to uid {facts.uid}, not {uid}", "", artefact)
    if facts.mode != artefact.mode and not artefact.link:
        return _mode(artefact, facts)
    return None


@dataclass(frozen=True)
class Release:
    """The release that is wanted, and what is in force. `name` is its directory's.

    `unit_first`: its guard does not know every flag of the unit that is there, so the unit has to
    change before it. `broken`: why the one that is in force has to be built again.
    """

    name: str
    built: bool
    current: str | None
    broken: str = ""
    unit_first: bool = False


@dataclass(frozen=True)
class TakenOver:
    """The service that was written by hand and stands where this deployment's will.

    `drop_ins` are those of its unit, which go aside with it. `bridged`: it runs and holds the very port, so that a trial
    has to serve between its end and the start of the new one. `redact` hides its secrets in a text.
    """

    drop_ins: Sequence[Path]
    bridged: bool
    redact: Callable[[str], str]


def changes(
    artefacts: Sequence[Artefact],
    found: Mapping[Path, Found],
    uid: int,
    manifest: Manifest,
    release: Release,
    paths: Paths,
    running: Running | None,
    taken_over: TakenOver | None = None,
) -> list[Change]:
    """A whole installation's steps, in the order in which they are applied. `found` also has what the manifest names.

    The release is built and proven before anything in force is touched. After every single step a
    start of the service finds a whole deployment, the old one or the new one. `running`: None where
    systemd does not run this deployment. `taken_over`: what was written by hand and goes.
    """
    made = {
        a.path: c for a in artefacts if (c := change(a, found[a.path], uid, manifest)) is not None
    }
    if taken_over and paths.service in made:
        made[paths.service] = _replacing_by_hand(made[paths.service], taken_over, paths)
    build, switch = [], []
    if not release.built:
        build.append(
            Change(
                "build", release.name, release.broken or "this release is not on this machine yet"
            )
        )
    if release.current != release.name:
        reason = (
            "no release is in force"
            if release.current is None
            else f"{release.current} is in force"
        )
        switch.append(Change("switch", release.name, reason))
    units = [made.pop(path) for path in (paths.socket, paths.service) if path in made]
    view = [made.pop(path) for path in (paths.home / ".optillm",) if path in made]
    watch = [made.pop(path) for path in (paths.check_service, paths.check_timer) if path in made]
    early = list(made.values())
    # a guard knows every flag of those before it
    live = [*units, *switch] if release.unit_first or release.current is None else [*switch, *units]
    unused = _unused(artefacts, manifest, found)
    aside = _aside(taken_over, paths)
    if running is None:
        return [*build, *early, *aside, *live, *watch, *view, *unused]
    # the one early file that a running process has read; with another text it would have another HOME
    read = live or any(Path(target).name == "proxy_config.yaml" for target in _touched(early))
    stale = "what it reads has changed" if read else running.stale
    relay = _relay(early, paths, running)
    sibling = _sibling(live, stale, paths, running, taken_over)
    # where something runs and nothing is in force, a sibling could not start before there is
    lost = switch if release.current is None and running.runs else []
    supervision = _supervision(live, stale, paths, running, taken_over)
    return [
        *build,
        *_trial(supervision, sibling, paths),
        *early,
        *relay,
        *lost,
        *sibling,
        *aside,
        *(step for step in live if step not in lost),
        *supervision,
        *watch,
        *(
            _monitoring(watch, paths, running)
            if any(a.path == paths.check_timer for a in artefacts)
            else ()
        ),
        *view,
        *_stopped(unused, paths, running),
    ]


def _touched(changes: Sequence[Change]) -> set[str]:
    return {c.target for c in changes if c.action in ("create", "replace")}


def _relay(early: Sequence[Change], paths: Paths, running: Running) -> list[Change]:
    """What the relay to the upstream needs before anybody may rely on its new unit."""
    if not (touched := _touched(early) & {str(paths.upstream_service), str(paths.upstream_socket)}):
        return []
    steps = [Change("reload", "systemd", "unit files changed")]
    name = paths.upstream_service.name
    if str(paths.upstream_service) in touched and running.found[name].active:
        steps.append(Change("restart", name, "its unit changed: upstream calls in flight are cut"))
    return steps


def _replacing_by_hand(step: Change, taken_over: TakenOver, paths: Paths) -> Change:
    """The replacement of the unit that was written by hand, its secrets hidden."""
    reason = f"it was written by hand; it is kept in {paths.before}"
    return replace(step, reason=reason, diff=taken_over.redact(step.diff))


def _aside(taken_over: TakenOver | None, paths: Paths) -> list[Change]:
    """The drop-ins of a unit that was written by hand go with it."""
    reason = f"it belongs to the unit that was written by hand; it is kept in {paths.before}"
    drop_ins = taken_over.drop_ins if taken_over else ()
    return [Change("aside", str(path), reason, edited=True) for path in drop_ins]


def _trial(supervision: Sequence[Change], sibling: Sequence[Change], paths: Paths) -> list[Change]:
    """A start of the release as its unit will start it, where no sibling is one before the service is touched."""
    if any(step.action == "sibling" for step in sibling):
        return []
    starting = ("start", "restart", "handover")
    units = (paths.service_unit, paths.socket_unit)
    if not any(step.action in starting and step.target in units for step in supervision):
        return []
    reason = (
        "it has to start in its sandbox, with this key and env file, before anything is touched"
    )
    return [Change("trial", f"{paths.trial_name}.service", reason)]


def _sibling(
    live: Sequence[Change], stale: str, paths: Paths, running: Running, taken_over: TakenOver | None
) -> list[Change]:
    """What comes before anything in force is touched."""
    service, socket = running.wanted[-1], running.wanted[-2]
    # a unit with a new port has a new socket: nobody can share it
    if (
        running.runs
        and stale
        and paths.scope == "system"
        and str(paths.socket) not in _touched(live)
    ):
        return [
            Change(
                "sibling",
                paths.sibling_unit,
                "it has to be ready, on the same socket, before the service is touched",
            )
        ]
    steps = []
    if running.sibling:
        steps.append(Change("stop", paths.sibling_unit, "an earlier restart left it behind"))
    bridged = taken_over is not None and taken_over.bridged
    if running.found[service].active and not running.found[socket].active and not bridged:
        steps.append(
            Change(
                "stop",
                service,
                "it holds the port without the socket: connections are refused until it is back",
            )
        )
    return steps


def _supervision(
    live: Sequence[Change], stale: str, paths: Paths, running: Running, taken_over: TakenOver | None
) -> list[Change]:
    """What systemd has to do so that the service runs what is on the disk now."""
    service, touched = running.wanted[-1], _touched(live)
    if taken_over is not None and taken_over.bridged:
        # it reloads systemd when the old process is gone
        told = "the old process ends, the trial serves until the new one is ready"
        steps = [Change("handover", service, told)]
    else:
        steps = _started(touched, stale, paths, running)
    # last: what does not start must not be started at every boot
    if any(running.found[name].unit_file_state != "enabled" for name in running.wanted):
        steps.append(Change("enable", " ".join(running.wanted), "they would not start at boot"))
    return steps


def _started(touched: set[str], stale: str, paths: Paths, running: Running) -> list[Change]:
    """The reload, and the start or restart of the service or its socket."""
    service, socket = running.wanted[-1], running.wanted[-2]
    steps = []
    if touched or any(unit.need_daemon_reload for unit in running.found.values()):
        steps.append(Change("reload", "systemd", "unit files changed"))
    if not running.runs:
        steps.append(Change("start", service, "it does not run"))
    elif str(paths.socket) in touched:
        steps.append(
            Change(
                "restart",
                socket,
                "its unit changed: connections are refused until it listens again",
            )
        )
    elif stale:
        told = (
            "; a sibling serves meanwhile"
            if paths.scope == "system"
            else ": newcomers wait until it is back"
        )
        steps.append(Change("restart", service, stale + told))
    return steps


def _monitoring(watch: Sequence[Change], paths: Paths, running: Running) -> list[Change]:
    """What systemd has to do so that the timer runs."""
    name, touched = paths.check_timer.name, _touched(watch)
    timer = running.found[name]
    steps = []
    if touched:
        steps.append(Change("reload", "systemd", "unit files changed"))
    if timer.unit_file_state != "enabled":
        steps.append(Change("enable", name, "it would not start at boot"))
    if not timer.active:
        steps.append(Change("start", name, "it does not run"))
    elif timer.sub_state == "elapsed" or str(paths.check_timer) in touched:
        steps.append(
            Change("restart", name, "its unit changed" if touched else "it will not fire again")
        )
    return steps


def _unused(
    artefacts: Sequence[Artefact], manifest: Manifest, found: Mapping[Path, Found]
) -> list[Change]:
    """The removal of what optictl wrote for an earlier configuration."""
    wanted = {str(a.path) for a in artefacts}
    return [
        _removal(path, manifest, found[Path(path)], "nothing needs it any more")
        for path in manifest.files
        if path not in wanted
    ]


def _stopped(unused: Sequence[Change], paths: Paths, running: Running) -> list[Change]:
    """The same, with the units among them stopped first."""
    names = [path.name for path in (Path(c.target) for c in unused) if path.parent == paths.units]
    known = [name for name in names if name in running.found and running.found[name].loaded]
    reason = "nothing needs it any more"
    steps = [Change("stop", name, reason, cleanup=True) for name in known]
    steps += [
        Change("disable", name, reason, cleanup=True)
        for name in known
        if name.endswith((".socket", ".timer"))
    ]
    reload = [Change("reload", "systemd", "unit files were removed", cleanup=True)] if names else []
    return [*steps, *unused, *reload]


def _removal(path: str, manifest: Manifest, found: Found, reason: str) -> Change:
    edited = found.facts.kind != "missing" and not manifest.wrote(path, found.text)
    return Change(
        "remove",
        path,
        "it was edited since optictl wrote it" if edited else reason,
        edited=edited,
        cleanup=True,
    )


def removal(
    paths: Paths,
    manifest: Manifest,
    found: Mapping[Path, Found],
    places: Sequence[Path],
    supervised: bool,
) -> list[Change]:
    """The steps that take away what the manifest names and `places`, which are optictl's own; secrets only if among them."""
    steps = []
    if supervised:
        steps += [
            Change("stop", paths.name, "it is to be removed"),
            Change("disable", paths.name, "it is to be removed"),
        ]
    steps += [
        _removal(path, manifest, found[Path(path)], "optictl made it") for path in manifest.files
    ]
    steps += [Change("remove", str(path), "optictl made it") for path in places]
    if supervised:
        steps.append(Change("reload", "systemd", "unit files were removed"))
    return steps
