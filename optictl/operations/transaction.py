"""If a step fails after something active was touched: put what was active back, and have it serve."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from optictl.deployment import render
from optictl.deployment.artefacts import Artefact
from optictl.deployment.paths import Paths
from optictl.errors import OptictlError, RolledBack, ToolError, os_words
from optictl.facts import installed_files
from optictl.facts import units as facts_units
from optictl.host import files
from optictl.host.systemd import Unit
from optictl.operations import file_changes, previous_service
from optictl.operations import service as services
from optictl.operations.installation import Installation
from optictl.releases import store
from optictl.results import Progress


@dataclass(frozen=True)
class _Before:
    """What was active: the release, the text of each file that a start of the service reads (None: it was missing) and
    its mode, whether the service ran, and how systemd knew each unit."""

    release: str | None
    texts: Mapping[Path, str | None]
    modes: Mapping[Path, int]
    runs: bool
    units: Mapping[str, Unit]


def _state_before(installation: Installation) -> _Before:
    paths = installation.paths
    rendered = [
        c.artefact.path
        for c in installation.changes
        if c.artefact is not None and not c.artefact.keep and not c.artefact.directory
    ]
    aside = [Path(change.target) for change in installation.changes if change.action == "aside"]
    running = facts_units.running(installation.config, paths) if installation.start else None
    return _Before(
        store.active_release(paths),
        {path: installed_files.look(path).text for path in (*rendered, *aside)},
        {path: files.file_facts(path).mode for path in (*rendered, *aside)},
        running is not None and running.runs,
        running.found if running is not None else {},
    )


@contextmanager
def rollback_on_failure(installation: Installation, progress: Progress) -> Iterator[None]:
    """If the block fails after something active was touched, put what was active back, and serve it.

    Raises:
        RolledBack: it did; the reason for it is told.
    """
    paths = installation.paths
    before = _state_before(installation)
    try:
        yield
    except (OptictlError, OSError, KeyboardInterrupt) as failure:
        touched = (
            store.active_release(paths) != before.release
            or any(installed_files.look(path).text != text for path, text in before.texts.items())
            or _units_differ(before, paths)
        )
        if not touched or (before.release is None and not before.units):
            raise  # without systemd a second run of a first installation goes on
        why = failure if isinstance(failure, OptictlError) else OptictlError(words_of(failure))
        detail = why.detail or _last_words(paths, bool(before.units))
        if before.release is not None and installation.hand_made is None:
            progress(f"rolling back to {before.release}: {why.what}")
            _put_back(before, installation, progress)
            now = f"rolled back to {before.release}"
        else:
            progress(f"rolling back: {why.what}")
            now = _undo(before, installation, progress)
        remedy = why.remedy or paths.command("logs --errors")
        raise RolledBack(f"{why.what}; {now}", remedy=remedy, detail=detail) from None


def _undo(before: _Before, installation: Installation, progress: Progress) -> str:
    """Take a first installation back: nothing of it runs or starts at boot, and what was there runs again.

    Returns what is there now, in words.
    """
    paths, hand_made = installation.paths, installation.hand_made
    systemd = facts_units.manager(paths)
    with suppress(OptictlError, ToolError):
        services.remove_everything(installation.config, paths)
    state = previous_service.read(paths) if hand_made is not None else None
    recorded = {kept.path for kept in state.files} if state else set()
    artefacts = _artefacts(installation)
    for path, text in before.texts.items():
        if text is None:
            files.remove(path)
        elif (
            path in artefacts
            and str(path) not in recorded
            and installed_files.look(path).text != text
        ):
            file_changes.put(replace(artefacts[path], text=text, mode=before.modes[path]))
    if state is not None:
        previous_service.put_back(paths, state)
        files.remove(paths.before)
    files.remove(paths.current)
    file_changes.write_manifest(
        paths,
        installed_files.as_it_is(installed_files.read_manifest(paths)).without(
            map(str, before.texts)
        ),
    )
    systemd.reload()
    systemd.reset_failed(paths.service_unit)
    old = before.units[paths.service_unit]
    if not old.loaded:
        return "nothing of it was left running or enabled"
    port = hand_made.port if hand_made is not None else None
    return previous_service.serve_again(paths, old.unit_file_state, old.active, port, progress)


def _artefacts(installation: Installation) -> dict[Path, Artefact]:
    return {c.artefact.path: c.artefact for c in installation.changes if c.artefact is not None}


def _units_differ(before: _Before, paths: Paths) -> bool:
    """Whether the service or its socket was started or enabled where neither ran before."""
    now = facts_units.facts(paths) if before.units and not before.runs else None
    if now is None:
        return False
    return any(
        now[name].active_state != before.units[name].active_state
        or now[name].unit_file_state != before.units[name].unit_file_state
        for name in (paths.service_unit, paths.socket_unit)
    )


def words_of(failure: BaseException) -> str:
    return os_words(failure) if isinstance(failure, OSError) else "interrupted"


def _last_words(paths: Paths, under_systemd: bool) -> str:
    """The end of the journal, where there is one."""
    if not under_systemd:
        return ""
    entries = facts_units.manager(paths).journal(paths.service_unit, "--lines=8")
    return "\n".join(str(entry.get("MESSAGE", "")) for entry in entries)


def _put_back(before: _Before, installation: Installation, progress: Progress) -> None:
    paths = installation.paths
    artefacts = _artefacts(installation)

    def put_units() -> None:
        for path, text in before.texts.items():
            if text is None:
                files.remove(path)
            elif installed_files.look(path).text != text:
                file_changes.put(replace(artefacts[path], text=text))

    if before.texts.get(paths.check_timer, "") is None:
        services.remove_timer(paths)
    assert before.release is not None
    known = set(store.guard_flags(paths, before.release))
    steps: list[Callable[[], object]] = [
        put_units,
        lambda: store.switch(paths, str(before.release)),
    ]
    if render.flags_in(files.read(paths.service) or "") <= known:
        steps.reverse()
    for step in steps:
        step()
    wrote = installed_files.read_manifest(paths)
    restored = {
        str(path): text
        for path, text in before.texts.items()
        if text is not None and str(path) in wrote.files
    }
    file_changes.write_manifest(paths, installed_files.as_it_is(wrote.intending(restored)))
    if before.units and not before.runs:
        _stop_again(before, installation)
    if before.runs:
        systemd = facts_units.manager(paths)
        systemd.reload()
        service = systemd.show(paths.service_unit)
        fitting = files.identity(paths.releases / before.release / "work")
        if not service.active or facts_units.directory_of(service.main_pid) != fitting:
            systemd.reset_failed(paths.service_unit)
            services.restart(installation.config, paths, progress)
        elif paths.scope == "system":
            services.remove_sibling(installation.config, paths)


def _stop_again(before: _Before, installation: Installation) -> None:
    """Stop and disable what did not run, or did not start at boot, before: a start that fails must not go on for ever."""
    paths = installation.paths
    systemd, now = facts_units.manager(paths), facts_units.facts(paths) or {}
    systemd.reload()
    stopped = [name for name, unit in now.items() if unit.active and not before.units[name].active]
    if stopped:
        systemd.stop(*stopped, seconds=installation.config.timeouts.drain + render.STOP_GRACE)
    disabled = [
        name
        for name, unit in now.items()
        if unit.unit_file_state == "enabled" and before.units[name].unit_file_state != "enabled"
    ]
    if disabled:
        systemd.disable(*disabled)
    systemd.reset_failed(*now)
