"""uninstall: the plan and its execution."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from optictl.deployment.config import Config
from optictl.deployment.manifest import Manifest
from optictl.deployment.paths import Paths
from optictl.errors import ConfigError, NotInstalled
from optictl.facts import config_file, installed_files, units
from optictl.host import files
from optictl.operations import current_state, deployment_lock, plan, previous_service
from optictl.operations.context import Context
from optictl.operations.deployment_lock import Done
from optictl.operations.steps import RestoreService, Step
from optictl.releases import store
from optictl.results import Progress


def plan_removal(paths: Paths, purge: bool, restore: bool = False) -> list[Step]:
    """What `uninstall` would do: what the manifest names and the releases go, the operator's own
    only with `purge`.

    `restore`: the service that was there before optictl's comes back.
    """
    return [*_plan_removal(paths, purge), *(_plan_restoration(paths) if restore else ())]


def _plan_restoration(paths: Paths) -> list[Step]:
    """The return of a service that was written by hand.

    Raises:
        OptictlError: no record of one is kept.
    """
    state = previous_service.read(paths)
    if state is None:
        raise NotInstalled(
            f"{paths.before} holds no service that was there before",
            remedy=paths.command("uninstall"),
        )
    runs = "started" if state.active else "left stopped, as it was"
    reason = f"it was there until {state.since}; {state.enabled or 'not enabled'}, and {runs}"
    return [RestoreService(state.unit, reason=reason)]


def _plan_removal(paths: Paths, purge: bool) -> list[Step]:
    wrote = installed_files.read_manifest(paths)
    installed = installed_files.read_all([], wrote)
    names = [
        path for path in map(Path, wrote.files) if installed[path].attributes.kind != "missing"
    ]
    wrote = Manifest(
        {path: digests for path, digests in wrote.files.items() if Path(path) in names}
    )
    releases_there = sorted(paths.releases.iterdir()) if paths.releases.is_dir() else []
    own = [
        paths.current,
        paths.previous,
        paths.root_directory,
        *releases_there,
        *current_state.leftovers(paths, [], store.half_built(paths)),
    ]
    operators = [paths.proxy_key, paths.env, paths.config, paths.locks] if purge else []
    metrics = [path for path in (current_state.metrics(paths),) if path is not None]
    everything = dict.fromkeys([*own, *metrics, *operators, paths.manifest])
    places = [path for path in everything if files.file_facts(path).kind != "missing"]
    directories = [
        p
        for p in _emptied(paths, purge, [*names, *places])
        if files.file_facts(p).kind == "directory"
    ]
    known_units = units.read_units(paths)
    supervised = bool(names) and known_units is not None and known_units[paths.service_unit].loaded
    if not names and not places and not directories:
        return []
    return plan.removal(paths, wrote, installed, [*places, *directories], supervised=supervised)


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
    shown: Sequence[Step],
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
        OptictlError: a step failed; a second run continues. Or the machine changed since the plan
            was made, or a file was edited and `force` not given.
    """
    # without paths.opt there is no release, and no installation holds its lock
    with deployment_lock.locked(paths) if paths.opt.is_dir() else nullcontext():
        steps = plan_removal(paths, purge, restore)
        deployment_lock.refuse_other(shown, steps)
        deployment_lock.refuse_edited(steps, paths, force)
        context = Context(config, paths, progress)
        for step in steps:
            step.apply(context)
            done(step)
        files.remove(paths.opt / ".lock")


def hints(paths: Paths) -> list[str]:
    """What to know before a removal: a hand-made service is kept, and can be restored."""
    kept = previous_service.read_if_allowed(paths)
    if kept is None:
        return []
    return [
        f"Before optictl, {kept.unit} was written by hand; it is kept in {paths.before}.",
        f"To put it back: {paths.command('uninstall --restore')}",
    ]


def config_or_default(path: Path) -> Config:
    """The configuration; the defaults where it is not valid.

    A removal does not need a valid one.
    """
    try:
        return config_file.load(path)
    except ConfigError:
        return Config()
