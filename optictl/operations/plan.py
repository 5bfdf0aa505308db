"""What is installed + what the configuration asks for -> the steps that lead there, each with
its reason. Pure.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from optictl.deployment.artefacts import Artefact
from optictl.deployment.manifest import Manifest
from optictl.deployment.paths import Paths
from optictl.facts.installed_files import InstalledFile
from optictl.facts.units import Running
from optictl.host.files import FileFacts
from optictl.operations.steps import (
    BuildRelease,
    CreateFile,
    DisableDeployment,
    DisableUnit,
    DrainAndRestart,
    EnableUnits,
    FileStep,
    HandOver,
    MoveAside,
    ReloadSystemd,
    Remove,
    ReplaceFile,
    RestartSocket,
    RestartUnit,
    RunTrial,
    SetMode,
    SetOwner,
    StartService,
    StartSibling,
    StartUnit,
    Step,
    StopCheck,
    StopDeployment,
    StopSibling,
    StopUnit,
    SwitchRelease,
)
from optictl.releases.locks import ReleaseSpec


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


def _mode(artefact: Artefact, facts: FileFacts) -> SetMode:
    mode = facts.mode & artefact.mode if artefact.keep else artefact.mode
    reason = f"its mode is {facts.mode:04o}, not {mode:04o}"
    return SetMode(replace(artefact, mode=mode), reason=reason)


_KINDS = {"link": "a link", "directory": "a directory", "file": "a file"}


def file_step(
    artefact: Artefact, installed: InstalledFile, uid: int, manifest: Manifest
) -> FileStep | None:
    """The step that makes a path what it should be, or None. `uid` is that of the user who
    installs.
    """
    facts = installed.attributes
    if facts.kind == "missing":
        return CreateFile(artefact, reason="it is missing", diff=_diff(artefact, None))
    if artefact.keep:
        return _operators_file_step(artefact, facts, uid)
    expected = "directory" if artefact.directory else "link" if artefact.link else "file"
    if facts.kind != expected:
        what = _KINDS.get(facts.kind, "something that is no file")
        diff = _diff(artefact, None)
        return ReplaceFile(artefact, reason=f"{what} is there", diff=diff, edited=True)
    if artefact.directory:
        return None
    if installed.text != artefact.text:
        return _replacement(artefact, installed.text, manifest)
    if facts.uid != uid:
        return ReplaceFile(artefact, reason=f"it belongs to uid {facts.uid}, not {uid}")
    if facts.mode != artefact.mode and not artefact.link:
        return _mode(artefact, facts)
    return None


def _operators_file_step(artefact: Artefact, facts: FileFacts, uid: int) -> FileStep | None:
    """A link to a secret store stays one, a mode that is stricter stays, and root may own all of
    them.
    """
    if facts.kind != "file":
        return None
    if facts.uid not in (0, uid):
        kept = replace(artefact, mode=facts.mode & artefact.mode)
        return SetOwner(kept, reason=f"it belongs to uid {facts.uid}, not {uid}")
    if facts.mode & ~artefact.mode:
        return _mode(artefact, facts)
    return None


def _replacement(artefact: Artefact, text: str | None, manifest: Manifest) -> ReplaceFile:
    edited = not manifest.wrote(artefact.path, text)
    if not edited:
        reason = "it differs from what the configuration asks for"
    elif str(artefact.path) in manifest.files:
        reason = "it was edited since optictl wrote it"
    else:
        reason = "optictl did not write it"
    return ReplaceFile(artefact, reason=reason, diff=_diff(artefact, text), edited=edited)


@dataclass(frozen=True)
class Release:
    """The release that the deployment is to run, whether it is built, and the active one.

    `unit_first`: its guard does not know every flag of the unit that is installed, so the unit has
    to change before it. `broken`: why the active one has to be rebuilt.
    """

    spec: ReleaseSpec
    built: bool
    current: str | None
    broken: str = ""
    unit_first: bool = False

    @property
    def name(self) -> str:
        """The name of its directory."""
        return self.spec.name


@dataclass(frozen=True)
class TakenOver:
    """The service that was written by hand under the name of this deployment's.

    `drop_ins` are those of its unit, which are moved aside with it. `bridged`: it runs and holds
    the same port, so a trial has to serve between its end and the start of the new one. `redact`
    hides its secrets in a text.
    """

    drop_ins: Sequence[Path]
    bridged: bool
    redact: Callable[[str], str]


def installation(
    artefacts: Sequence[Artefact],
    installed: Mapping[Path, InstalledFile],
    uid: int,
    manifest: Manifest,
    release: Release,
    paths: Paths,
    running: Running | None,
    taken_over: TakenOver | None = None,
) -> list[Step]:
    """A whole installation's steps, in the order in which they are applied.

    The release is built and proven before anything active is touched. After every single step a
    start of the service finds a whole deployment, the old one or the new one. `installed`: what is
    there, also of what the manifest names. `running`: None where systemd does not run this
    deployment. `taken_over`: the service that was written by hand.
    """
    file_steps = {
        artefact.path: step
        for artefact in artefacts
        if (step := file_step(artefact, installed[artefact.path], uid, manifest)) is not None
    }
    if taken_over and paths.service in file_steps:
        by_hand = _replacing_by_hand(file_steps[paths.service], taken_over, paths)
        file_steps[paths.service] = by_hand
    parts = _parts(file_steps, release, paths, taken_over)
    unused = _unused(artefacts, manifest, installed)
    if running is None:
        return parts.without_systemd(unused)
    situation = _Situation(paths, release, running, taken_over)
    has_timer = any(artefact.path == paths.check_timer for artefact in artefacts)
    return _under_systemd(situation, parts, unused, has_timer)


@dataclass(frozen=True)
class _Parts:
    """The steps about the release and the files, by when they are applied.

    `early` are files that only a changed unit makes use of, `live` the steps that a start of the
    service sees, `watch` the units of the check, `view` the link for people.
    """

    build: Sequence[Step]
    early: Sequence[Step]
    aside: Sequence[Step]
    switch: Sequence[Step]
    live: Sequence[Step]
    watch: Sequence[Step]
    view: Sequence[Step]

    def without_systemd(self, unused: Sequence[Step]) -> list[Step]:
        return [
            *self.build,
            *self.early,
            *self.aside,
            *self.live,
            *self.watch,
            *self.view,
            *unused,
        ]


def _parts(
    file_steps: Mapping[Path, FileStep],
    release: Release,
    paths: Paths,
    taken_over: TakenOver | None,
) -> _Parts:
    def of(*places: Path) -> list[Step]:
        return [file_steps[place] for place in places if place in file_steps]

    late = (paths.socket, paths.service, paths.check_service, paths.check_timer)
    view = paths.home / ".optillm"
    switch, units = _switch(release), of(paths.socket, paths.service)
    # a guard knows every flag of those before it
    unit_first = release.unit_first or release.current is None
    return _Parts(
        build=_build(release),
        early=[step for path, step in file_steps.items() if path not in (*late, view)],
        aside=_aside(taken_over, paths),
        switch=switch,
        live=[*units, *switch] if unit_first else [*switch, *units],
        watch=of(paths.check_service, paths.check_timer),
        view=of(view),
    )


def _build(release: Release) -> list[Step]:
    if release.built:
        return []
    reason = release.broken or "this release is not on this machine yet"
    return [BuildRelease(release.spec, reason=reason)]


def _switch(release: Release) -> list[Step]:
    if release.current == release.name:
        return []
    is_first = release.current is None
    reason = "no release is active" if is_first else f"{release.current} is active"
    return [SwitchRelease(release.spec, reason=reason)]


@dataclass(frozen=True)
class _Situation:
    """What the steps about units are decided from."""

    paths: Paths
    release: Release
    running: Running
    taken_over: TakenOver | None

    @property
    def service(self) -> str:
        return self.running.to_enable[-1]

    @property
    def socket(self) -> str:
        return self.running.to_enable[-2]

    @property
    def is_bridged(self) -> bool:
        """A process that was started by hand holds the port, and hands over to the new one."""
        return self.taken_over is not None and self.taken_over.bridged


def _under_systemd(
    now: _Situation, parts: _Parts, unused: Sequence[Remove], has_timer: bool
) -> list[Step]:
    # the one early file that a running process has read; with another text it would have another
    # HOME
    is_read = any(path.name == "proxy_config.yaml" for path in _written(parts.early))
    is_stale = bool(parts.live) or is_read
    stale = "what it reads has changed" if is_stale else now.running.stale
    sibling = _sibling(now, parts.live, stale)
    # where something runs and no release is active, a sibling could not start before one is
    lost = parts.switch if now.release.current is None and now.running.runs else []
    supervision = _supervision(now, parts.live, stale)
    return [
        *parts.build,
        *_trial(now, supervision, sibling),
        *parts.early,
        *_relay(now, parts.early),
        *lost,
        *sibling,
        *parts.aside,
        *(step for step in parts.live if step not in lost),
        *supervision,
        *parts.watch,
        *(_monitoring(now, parts.watch) if has_timer else ()),
        *parts.view,
        *_stopped(now, unused),
    ]


def _written(steps: Sequence[Step]) -> set[Path]:
    """The paths that these steps write."""
    return {s.artefact.path for s in steps if isinstance(s, (CreateFile, ReplaceFile))}


def _reload() -> ReloadSystemd:
    return ReloadSystemd(reason="unit files changed")


def _relay(now: _Situation, early: Sequence[Step]) -> list[Step]:
    """What the relay to the upstream needs before its new unit may be relied on."""
    paths = now.paths
    written = _written(early) & {paths.upstream_service, paths.upstream_socket}
    if not written:
        return []
    steps: list[Step] = [_reload()]
    name = paths.upstream_service.name
    if paths.upstream_service in written and now.running.units[name].active:
        reason = "its unit changed: upstream calls in flight are cut"
        steps.append(RestartUnit(name, reason=reason))
    return steps


def _replacing_by_hand(step: FileStep, taken_over: TakenOver, paths: Paths) -> FileStep:
    """The replacement of the unit that was written by hand, its secrets hidden."""
    if not isinstance(step, (CreateFile, ReplaceFile)):
        return step
    reason = f"it was written by hand; it is kept in {paths.before}"
    return replace(step, reason=reason, diff=taken_over.redact(step.diff), of_hand_made=True)


def _aside(taken_over: TakenOver | None, paths: Paths) -> list[Step]:
    """The drop-ins of a unit that was written by hand are moved aside with it."""
    reason = f"it belongs to the unit that was written by hand; it is kept in {paths.before}"
    drop_ins = taken_over.drop_ins if taken_over else ()
    return [MoveAside(path, reason=reason, edited=True) for path in drop_ins]


def _trial(now: _Situation, supervision: Sequence[Step], sibling: Sequence[Step]) -> list[Step]:
    """A start of the release as its unit will start it, where no sibling is one before the
    service is touched.
    """
    if any(isinstance(step, StartSibling) for step in sibling):
        return []
    starting = (StartService, RestartSocket, DrainAndRestart, HandOver)
    if not any(isinstance(step, starting) for step in supervision):
        return []
    reason = (
        "the release has to start in its sandbox, with this key and env file, before any change"
    )
    unit = f"{now.paths.trial_name}.service"
    return [RunTrial(unit, now.release.spec, serves_on=now.is_bridged, reason=reason)]


def _sibling(now: _Situation, live: Sequence[Step], stale: str) -> list[Step]:
    """What comes before anything active is touched."""
    running, paths = now.running, now.paths
    # a unit with a new port has a new socket, which cannot be shared
    shares_socket = paths.scope == "system" and paths.socket not in _written(live)
    if running.runs and stale and shares_socket:
        reason = "it has to be ready, on the same socket, before the service is touched"
        return [StartSibling(paths.sibling_unit, now.release.spec, reason=reason)]
    steps: list[Step] = []
    if running.sibling:
        reason = "an earlier restart left it behind"
        steps.append(StopSibling(paths.sibling_unit, reason=reason))
    holds_port = running.units[now.service].active and not running.units[now.socket].active
    if holds_port and not now.is_bridged:
        reason = "it holds the port without the socket: connections are refused until it is back"
        steps.append(StopUnit(now.service, reason=reason))
    return steps


def _supervision(now: _Situation, live: Sequence[Step], stale: str) -> list[Step]:
    """What systemd has to do so that the service runs what is on the disk now."""
    running = now.running
    if now.is_bridged:
        # it reloads systemd after the old process has ended
        reason = "the old process ends, the trial serves until the new one is ready"
        steps: list[Step] = [HandOver(now.service, now.release.spec, reason=reason)]
    else:
        steps = _started(now, live, stale)
    # last: what does not start must not be started at every boot
    if any(running.units[name].unit_file_state != "enabled" for name in running.to_enable):
        reason = "they would not start at boot"
        steps.append(EnableUnits(tuple(running.to_enable), reason=reason))
    return steps


def _started(now: _Situation, live: Sequence[Step], stale: str) -> list[Step]:
    """The reload, and the start or restart of the service or its socket."""
    written, units = _written(live), now.running.units.values()
    steps: list[Step] = []
    if written or any(unit.need_daemon_reload for unit in units):
        steps.append(_reload())
    if not now.running.runs:
        steps.append(StartService(now.service, reason="it does not run"))
    elif now.paths.socket in written:
        reason = "its unit changed: connections are refused until it listens again"
        steps.append(RestartSocket(now.socket, reason=reason))
    elif stale:
        has_sibling = now.paths.scope == "system"
        meanwhile = (
            "; a sibling serves meanwhile"
            if has_sibling
            else ": new requests wait until it is back"
        )
        steps.append(DrainAndRestart(now.service, reason=stale + meanwhile))
    return steps


def _monitoring(now: _Situation, watch: Sequence[Step]) -> list[Step]:
    """What systemd has to do so that the timer runs."""
    name, written = now.paths.check_timer.name, _written(watch)
    timer = now.running.units[name]
    steps: list[Step] = []
    if written:
        steps.append(_reload())
    if timer.unit_file_state != "enabled":
        steps.append(EnableUnits((name,), reason="it would not start at boot"))
    if not timer.active:
        steps.append(StartUnit(name, reason="it does not run"))
    elif timer.sub_state == "elapsed" or now.paths.check_timer in written:
        reason = "its unit changed" if written else "it will not fire again"
        steps.append(RestartUnit(name, reason=reason))
    return steps


_UNUSED = "it is no longer needed"


def _unused(
    artefacts: Sequence[Artefact], manifest: Manifest, installed: Mapping[Path, InstalledFile]
) -> list[Remove]:
    """The removal of what optictl wrote for an earlier configuration."""
    needed = {str(artefact.path) for artefact in artefacts}
    return [
        _removal(path, manifest, installed[Path(path)], _UNUSED)
        for path in manifest.files
        if path not in needed
    ]


def _stopped(now: _Situation, unused: Sequence[Remove]) -> list[Step]:
    """The same, with the units among them stopped first."""
    paths, known = now.paths, now.running.units
    names = [step.path.name for step in unused if step.path.parent == paths.units]
    loaded = [name for name in names if name in known and known[name].loaded]
    of_check = (paths.check_timer.name, paths.check_service.name)
    steps: list[Step] = [
        (StopCheck if name in of_check else StopUnit)(name, reason=_UNUSED, cleanup=True)
        for name in loaded
    ]
    steps += [
        DisableUnit(name, reason=_UNUSED, cleanup=True)
        for name in loaded
        if name.endswith((".socket", ".timer"))
    ]
    last = [ReloadSystemd(reason="unit files were removed", cleanup=True)] if names else []
    return [*steps, *unused, *last]


def _removal(path: str, manifest: Manifest, installed: InstalledFile, reason: str) -> Remove:
    edited = installed.attributes.kind != "missing" and not manifest.wrote(path, installed.text)
    reason = "it was edited since optictl wrote it" if edited else reason
    return Remove(Path(path), reason=reason, edited=edited, cleanup=True)


def removal(
    paths: Paths,
    manifest: Manifest,
    installed: Mapping[Path, InstalledFile],
    places: Sequence[Path],
    supervised: bool,
) -> list[Step]:
    """The steps that remove what the manifest names, and `places`, which are optictl's own;
    secrets only if among them.
    """
    steps: list[Step] = []
    if supervised:
        reason = "it is to be removed"
        steps += [
            StopDeployment(paths.name, reason=reason),
            DisableDeployment(paths.name, reason=reason),
        ]
    made = "optictl made it"
    steps += [_removal(path, manifest, installed[Path(path)], made) for path in manifest.files]
    steps += [Remove(path, reason=made) for path in places]
    if supervised:
        steps.append(ReloadSystemd(reason="unit files were removed"))
    return steps
