"""init and install: read facts, plan, apply, each step in an order that leaves what runs alone."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from optictl import plan, releases, render, supervise
from optictl.config import Config
from optictl.errors import OptictlError
from optictl.host import files
from optictl.paths import Paths
from optictl.plan import Artefact, Change, Found
from optictl.releases import Progress, Wanted


def new_proxy_key() -> str:
    """256 random bits. The word in front keeps it from ever beginning with sk-."""
    return f"optillm-{secrets.token_urlsafe(32)}"


def _found(artefacts: list[Artefact]) -> dict[Path, Found]:
    try:
        return {
            # the text of a secret is no fact that a plan needs
            a.path: Found(f := files.facts(a.path), None if a.keep or f.kind != "file" else files.read(a.path))
            for a in artefacts
        }
    except PermissionError as error:
        raise _denied(error) from None


def _denied(error: OSError) -> OptictlError:
    return OptictlError(
        f"no permission for {error.filename}",
        remedy="run it with sudo, or use --user or --root DIR for a deployment of your own",
    )


def _apply(change: Change) -> None:
    if (artefact := change.artefact) is None:
        return
    if change.action == "mode":
        files.set_mode(artefact.path, artefact.mode)
        return
    if artefact.directory:
        files.make_directory(artefact.path)
        return
    if files.facts(artefact.path).kind == "directory":
        raise OptictlError(f"a directory stands at {artefact.path}", remedy=f"move {artefact.path} away")
    files.make_directory(artefact.path.parent)
    files.write(artefact.path, artefact.text, artefact.mode)


def init(paths: Paths) -> tuple[list[Change], list[Path]]:
    """Make what the operator owns: configuration, env file, proxy key. Overwrites nothing.

    Returns:
        What was made, and what was there already.
    """
    defaults = Config()
    artefacts = plan.operators_files(render.configuration(defaults), defaults, paths, new_proxy_key())
    found = _found(artefacts)
    missing = [a for a in artefacts if found[a.path].facts.kind == "missing"]
    made = [Change("create", str(a.path), "it is missing", "", a) for a in missing]
    try:
        for change in made:
            _apply(change)
    except PermissionError as error:
        raise _denied(error) from None
    return made, [a.path for a in artefacts if a not in missing]


@dataclass(frozen=True)
class Installation:
    """A planned installation: the changes, and what is needed to apply them."""

    config: Config
    paths: Paths
    want: Wanted
    changes: list[Change]


def plan_install(config: Config, paths: Paths, start: bool = True) -> Installation:
    """What `install` would do now. Reads, never writes. `start`: systemd, where it runs, is to run it."""
    want = releases.wanted(config, paths)
    artefacts = plan.operators_files(render.configuration(config), config, paths, new_proxy_key())
    artefacts += plan.rendered_files(config, paths, supervise.host(paths, want.directory(paths)))
    changes = plan.changes(
        artefacts,
        _found(artefacts),
        os.geteuid(),
        release=want.id,
        built=releases.record(want.directory(paths)) is not None,
        current=releases.in_force(paths),
    )
    if start and (units := supervise.facts(paths)) is not None:
        changes += plan.supervision(changes, paths, supervise.units(config, paths), units)
    return Installation(config, paths, want, changes)


def apply_install(
    installation: Installation, python: Path | None, wheelhouse: Path | None, progress: Progress,
    done: Callable[[Change], None],
) -> None:  # fmt: skip
    """Apply a planned installation. A step that fails leaves what was in force in force.

    Raises:
        OptictlError: a step failed; what was done so far is whole, and a second run goes on.
    """
    paths = installation.paths
    try:
        files.make_directory(paths.opt)
        with files.exclusive(paths.opt / ".lock"):
            _apply_all(installation, python, wheelhouse, progress, done)
    except files.Locked as holder:
        raise OptictlError(f"{holder} is working on this deployment", remedy="wait for it to end") from None
    except PermissionError as error:
        raise _denied(error) from None
    except OSError as error:
        raise OptictlError(
            f"{error.strerror or error}: {error.filename or ''}".rstrip(": "),
            remedy=f"mend it and run {paths.command('install')} again; what was in force still is",
        ) from None


def _apply_all(
    installation: Installation, python: Path | None, wheelhouse: Path | None, progress: Progress,
    done: Callable[[Change], None],
) -> None:  # fmt: skip
    paths, want = installation.paths, installation.want
    rendered: dict[Path, Artefact] = {}
    for change in installation.changes:
        if change.action == "build":
            if releases.record(want.directory(paths)) is not None:
                # while somebody looked at this plan, another optictl built it; it may be serving
                progress(f"{want.id} was built meanwhile")
                done(change)
                continue
            interpreter = releases.interpreter(_others_must_reach(paths), python, progress)
            files.make_directory(paths.releases)
            for leftover in releases.half_built(paths):
                progress(f"removing the half-built {leftover.name}")
                files.remove(leftover)
            releases.build(want, paths, installation.config, interpreter, wheelhouse, progress)
            # a unit names the interpreter's directory, which is known only now
            host = supervise.host(paths, want.directory(paths))
            rendered = {a.path: a for a in plan.rendered_files(installation.config, paths, host)}
        elif change.action == "switch":
            releases.switch(paths, want.id)
        elif change.artefact is not None:
            _apply(replace(change, artefact=rendered.get(change.artefact.path, change.artefact)))
        else:
            supervise.apply_change(change, installation.config, paths, progress)
        done(change)


def plan_removal(paths: Paths, purge: bool) -> list[Change]:
    """What `uninstall` would do: releases and rendered files go, the operator's own only with `purge`."""
    places = [paths.service, paths.socket, paths.upstream_service, paths.upstream_socket, paths.opt, paths.home]
    if purge:
        places.append(paths.etc)
    existing = [path for path in places if files.facts(path).kind != "missing"]
    units = supervise.facts(paths)
    return plan.removal(paths, existing, supervised=units is not None and units[supervise.SERVICE].loaded) if existing else []


def apply_removal(
    changes: list[Change], config: Config, paths: Paths, progress: Progress, done: Callable[[Change], None]
) -> None:
    """Apply a planned removal.

    Raises:
        OptictlError: a step failed; a second run goes on.
    """
    try:
        # without paths.opt there is no release, and nobody who installs holds its lock
        with files.exclusive(paths.opt / ".lock") if paths.opt.is_dir() else nullcontext():
            for change in changes:
                if change.action == "remove":
                    files.remove(Path(change.target))
                else:
                    supervise.apply_change(change, config, paths, progress)
                done(change)
    except files.Locked as holder:
        raise OptictlError(f"{holder} is working on this deployment", remedy="wait for it to end") from None
    except PermissionError as error:
        raise _denied(error) from None


def _others_must_reach(paths: Paths) -> bool:
    """Whether the service runs as another user than the one who installs."""
    return paths.scope == "system" and os.geteuid() == 0
