"""uninstall: the plan and its execution."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from optictl.deployment.config import Config
from optictl.deployment.manifest import Manifest
from optictl.deployment.paths import Paths
from optictl.errors import OptictlError
from optictl.facts import installed_files
from optictl.facts import units as facts_units
from optictl.host import files
from optictl.operations import file_changes, install, plan, previous_service, service
from optictl.operations.install import Done
from optictl.operations.plan import Change
from optictl.results import Progress
from optictl.takeover import reader


def plan_removal(paths: Paths, purge: bool, restore: bool = False) -> list[Change]:
    """What `uninstall` would do: what the manifest names and the releases go, the operator's own only with `purge`.

    `restore`: the service that was there before optictl's comes back.
    """
    return [*_plan_removal(paths, purge), *(_plan_restoration(paths) if restore else ())]


def _plan_restoration(paths: Paths) -> list[Change]:
    """The return of a service that was written by hand.

    Raises:
        OptictlError: no record of one is kept.
    """
    state = previous_service.read(paths)
    if state is None:
        raise OptictlError(
            f"{paths.before} holds no service that was there before",
            remedy=paths.command("uninstall"),
        )
    runs = "started" if state.active else "left stopped, as it was"
    reason = f"it was there until {state.since}; {state.enabled or 'not enabled'}, and {runs}"
    return [Change("restore", state.unit, reason)]


def _plan_removal(paths: Paths, purge: bool) -> list[Change]:
    wrote = installed_files.read_manifest(paths)
    found = installed_files.look_at([], wrote)
    names = [path for path in map(Path, wrote.files) if found[path].facts.kind != "missing"]
    wrote = Manifest(
        {path: digests for path, digests in wrote.files.items() if Path(path) in names}
    )
    releases_there = sorted(paths.releases.iterdir()) if paths.releases.is_dir() else []
    own = [
        paths.current,
        paths.previous,
        paths.root_directory,
        *releases_there,
        *install.leftovers(paths, []),
    ]
    operators = [paths.proxy_key, paths.env, paths.config, paths.locks] if purge else []
    metrics = [path for path in (install.metrics(paths),) if path is not None]
    everything = dict.fromkeys([*own, *metrics, *operators, paths.manifest])
    places = [path for path in everything if files.file_facts(path).kind != "missing"]
    directories = [
        p
        for p in _emptied(paths, purge, [*names, *places])
        if files.file_facts(p).kind == "directory"
    ]
    units = facts_units.facts(paths)
    supervised = units is not None and units[paths.service_unit].loaded and bool(names)
    if not names and not places and not directories:
        return []
    return plan.removal(paths, wrote, found, [*places, *directories], supervised=supervised)


def _emptied(paths: Paths, purge: bool, removed: Sequence[Path]) -> list[Path]:
    """Directories of optictl's own that hold nothing but what is removed, innermost first."""
    homes = [p.parent for p in removed if p.name == "proxy_config.yaml"]
    candidates = [
        *homes,
        *(p.parent for p in homes),
        paths.releases,
        paths.home,
        paths.opt,
        *([paths.etc] if purge else []),
    ]
    gone = {*removed, paths.opt / ".lock"}
    emptied = []
    for directory in candidates:
        if directory.is_dir() and directory not in gone and set(directory.iterdir()) <= gone:
            emptied.append(directory)
            gone.add(directory)
    return emptied


def apply_removal(
    shown: Sequence[Change],
    config: Config,
    paths: Paths,
    purge: bool,
    progress: Progress,
    done: Done,
    force: bool = False,
    restore: bool = False,
) -> None:
    """Apply a planned removal.

    Raises:
        OptictlError: a step failed; a second run goes on. Or the machine is no longer what it was when the plan
            was made, or a file was edited and `force` not given.
    """
    # without paths.opt there is no release, and no installation holds its lock
    with install.locked(paths) if paths.opt.is_dir() else nullcontext():
        changes = plan_removal(paths, purge, restore)
        install.refuse_other(shown, changes)
        install.refuse_edited(changes, paths, force)
        for change in changes:
            if change.action == "remove":
                file_changes.take_away(change)
            elif change.action == "restore":
                _restore(paths, progress)
            else:
                service.apply_change(change, config, paths, progress)
            done(change)
        files.remove(paths.opt / ".lock")


def _restore(paths: Paths, progress: Progress) -> None:
    """Put the service that was there before optictl's back, as it was."""
    if (state := previous_service.read(paths)) is None:
        return
    previous_service.put_back(paths, state)
    if facts_units.facts(paths) is not None:
        facts_units.manager(paths).reload()
        restored = reader.read(paths)
        port = restored.port if restored is not None else None
        progress(previous_service.serve_again(paths, state.enabled, state.active, port, progress))
    files.remove(paths.before)
    for directory in (paths.etc,):
        if directory.is_dir() and not any(directory.iterdir()):
            files.remove(directory)
