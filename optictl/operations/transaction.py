"""If a step fails after something active was touched: undo the steps, and have what was active
serve again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from optictl.deployment.paths import Paths
from optictl.errors import OptictlError, RolledBack, ToolError, os_words
from optictl.facts import installed_files, units
from optictl.host import files
from optictl.operations import file_changes, previous_service, service
from optictl.operations.context import Context, StateBefore
from optictl.operations.installation import Installation
from optictl.operations.steps import FileStep, MoveAside
from optictl.releases import failures, store


def _state_before(installation: Installation) -> StateBefore:
    """What is active now. It is read again here: a build may have taken minutes since the plan
    was made.
    """
    paths = installation.paths
    written = [
        step.artefact.path
        for step in installation.steps
        if isinstance(step, FileStep) and not (step.artefact.keep or step.artefact.directory)
    ]
    aside = [step.path for step in installation.steps if isinstance(step, MoveAside)]
    running = units.running(installation.config, paths) if installation.start else None
    return StateBefore(
        store.active_release(paths),
        {path: installed_files.read(path).text for path in (*written, *aside)},
        {path: files.file_facts(path).mode for path in (*written, *aside)},
        running is not None and running.runs,
        running.units if running is not None else {},
        store.previous(paths),
    )


@contextmanager
def rollback_on_failure(installation: Installation, context: Context) -> Iterator[None]:
    """If the block fails after something active was touched, undo the steps and serve what was
    active again.

    Raises:
        RolledBack: it did; the error gives the reason.
    """
    paths = installation.paths
    before = context.before = _state_before(installation)
    try:
        yield
    except (OptictlError, OSError, KeyboardInterrupt) as failure:
        if not _is_touched(before, paths) or (before.release is None and not before.units):
            raise  # without systemd a second run continues a first installation
        why = failure if isinstance(failure, OptictlError) else OptictlError(words_of(failure))
        detail = why.detail or _end_of_journal(paths, bool(before.units))
        if not isinstance(failure, KeyboardInterrupt):
            _record_failure(before, installation, why.what)
        now = _roll_back(before, installation, context, why.what)
        remedy = why.remedy or units.explaining_command(paths)
        raise RolledBack(f"{why.what}; {now}", remedy=remedy, detail=detail) from None


def _record_failure(before: StateBefore, installation: Installation, reason: str) -> None:
    """The release that was activated in the place of another one failed."""
    name, paths = installation.want.name, installation.paths
    if before.release not in (None, name) and store.active_release(paths) == name:
        with suppress(OSError):  # nothing may keep the release that was active from serving again
            failures.record(paths.releases / name, reason)


def _is_touched(before: StateBefore, paths: Paths) -> bool:
    return (
        store.active_release(paths) != before.release
        or any(installed_files.read(path).text != text for path, text in before.texts.items())
        or _units_differ(before, paths)
    )


def _units_differ(before: StateBefore, paths: Paths) -> bool:
    """Whether the service or its socket was started or enabled where neither ran before."""
    now = units.read_units(paths) if before.units and not before.runs else None
    if now is None:
        return False
    return any(
        now[name].active_state != before.units[name].active_state
        or now[name].unit_file_state != before.units[name].unit_file_state
        for name in (paths.service_unit, paths.socket_unit)
    )


def _roll_back(before: StateBefore, installation: Installation, context: Context, why: str) -> str:
    """Undo the steps, and bring the units back. Returns what is there now, in words."""
    if before.release is not None and installation.hand_made is None:
        context.say(f"rolling back to {before.release}: {why}")
        _return_to_release(before, installation, context)
        return f"rolled back to {before.release}"
    context.say(f"rolling back: {why}")
    return _undo_first_installation(before, installation, context)


def _undo(installation: Installation, context: Context) -> None:
    """Undo the steps, the last first: a start of the service finds a whole deployment after each.

    Also those that were not reached: where nothing differs from before, an undo does nothing.
    """
    for step in reversed(installation.steps):
        if not step.cleanup:
            step.undo(context)


def _undo_first_installation(
    before: StateBefore, installation: Installation, context: Context
) -> str:
    """Take a first installation back: nothing of it runs or starts at boot, and what was there runs
    again.

    Returns what is there now, in words.
    """
    paths, hand_made = installation.paths, installation.hand_made
    with suppress(OptictlError, ToolError):
        service.remove_everything(installation.config, paths)
    record = previous_service.read(paths) if hand_made is not None else None
    if record is not None:  # with modes and owners, which an undo of a step does not know
        previous_service.put_back(paths, record)
    _undo(installation, context)
    if record is not None:
        files.remove(paths.before)
    manifest = installed_files.as_it_is(installed_files.read_manifest(paths))
    file_changes.write_manifest(paths, manifest.without(map(str, before.texts)))
    systemd = units.manager(paths)
    systemd.reload()
    systemd.reset_failed(paths.service_unit)
    old = before.units[paths.service_unit]
    if not old.loaded:
        return "nothing of it was left running or enabled"
    port = hand_made.port if hand_made is not None else None
    return previous_service.serve_again(paths, old.unit_file_state, old.active, port, context.say)


def words_of(failure: BaseException) -> str:
    """What went wrong, where the failure is none of optictl's errors."""
    return os_words(failure) if isinstance(failure, OSError) else "interrupted"


def _end_of_journal(paths: Paths, under_systemd: bool) -> str:
    """The service's last lines, where there is a journal."""
    if not under_systemd:
        return ""
    entries = units.manager(paths).journal(paths.service_unit, "--lines=8")
    return "\n".join(str(entry.get("MESSAGE", "")) for entry in entries)


def _return_to_release(before: StateBefore, installation: Installation, context: Context) -> None:
    """Undo the steps, and have the release that was active serve again, if it served."""
    paths = installation.paths
    if before.texts.get(paths.check_timer, "") is None:
        service.remove_timer(paths)
    _undo(installation, context)
    manifest = installed_files.read_manifest(paths)
    restored = {
        str(path): text
        for path, text in before.texts.items()
        if text is not None and str(path) in manifest.files
    }
    file_changes.write_manifest(paths, installed_files.as_it_is(manifest.intending(restored)))
    if before.units and not before.runs:
        _stop_again(before, installation)
    if before.runs:
        _serve_again(before, installation, context)


def _serve_again(before: StateBefore, installation: Installation, context: Context) -> None:
    """Restart the service where its process is not one of the release that was active."""
    paths, systemd = installation.paths, units.manager(installation.paths)
    assert before.release is not None
    systemd.reload()
    unit = systemd.show(paths.service_unit)
    directory = files.identity(paths.releases / before.release / "work")
    if not unit.active or units.directory_of(unit.main_pid) != directory:
        systemd.reset_failed(paths.service_unit)  # or it may have reached its limit of starts
        service.restart(installation.config, paths, context.say)
    elif paths.scope == "system":
        service.remove_sibling(installation.config, paths)


def _stop_again(before: StateBefore, installation: Installation) -> None:
    """Stop and disable what did not run, or did not start at boot, before: a start that fails
    must not be repeated for ever.
    """
    paths = installation.paths
    systemd, now = units.manager(paths), units.read_units(paths) or {}
    systemd.reload()
    stopped = [name for name, unit in now.items() if unit.active and not before.units[name].active]
    if stopped:
        systemd.stop(*stopped, seconds=service.stop_seconds(installation.config))
    disabled = [
        name
        for name, unit in now.items()
        if unit.unit_file_state == "enabled" and before.units[name].unit_file_state != "enabled"
    ]
    if disabled:
        systemd.disable(*disabled)
    systemd.reset_failed(*now)
