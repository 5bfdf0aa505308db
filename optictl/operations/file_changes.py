"""The files of a deployment on the disk: looked at, written, taken away, and named by the manifest."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from optictl.deployment.artefacts import Artefact
from optictl.deployment.manifest import Manifest
from optictl.deployment.paths import Paths
from optictl.errors import OptictlError
from optictl.host import files
from optictl.operations.plan import Change
from optictl.releases import store


def write_manifest(paths: Paths, wrote: Manifest) -> None:
    if files.read(paths.manifest) != (text := wrote.dump()):
        files.write(paths.manifest, text, 0o644)


def remove_empty(directories: Sequence[Path], below: Path) -> None:
    """Remove what is left of a HOME whose provider file is gone."""
    for directory in directories:
        if (
            directory.is_relative_to(below)
            and directory != below
            and directory.is_dir()
            and not any(directory.iterdir())
        ):
            files.remove(directory)


def apply_file(change: Change) -> None:
    artefact = change.artefact
    assert artefact is not None
    if change.action in ("mode", "owner"):
        if change.action == "owner":
            files.set_owner(artefact.path)
        files.set_mode(artefact.path, artefact.mode)
        return
    kind = files.file_facts(artefact.path).kind
    if kind == "directory" and not artefact.directory:
        raise OptictlError(
            f"a directory stands at {artefact.path}", remedy=f"move {artefact.path} away"
        )
    if change.edited and kind != "missing":
        files.keep_aside(artefact.path, time.strftime("kept-%Y%m%dT%H%M%SZ", time.gmtime()))
        if artefact.directory:
            files.remove(artefact.path)
    put(artefact)


def put(artefact: Artefact) -> None:
    files.make_directory(artefact.path if artefact.directory else artefact.path.parent)
    if artefact.link:
        files.replace_link(artefact.path, Path(artefact.text))
    elif not artefact.directory:
        files.write(artefact.path, artefact.text, artefact.mode)


def take_away(change: Change) -> None:
    """Remove a file that is optictl's own, or a release; an edited file is kept under another name."""
    path = Path(change.target)
    if change.edited and files.file_facts(path).kind != "missing":
        files.keep_aside(path, time.strftime("kept-%Y%m%dT%H%M%SZ", time.gmtime()))
    if files.file_facts(path).kind == "directory":
        store.remove(path)
    else:
        files.remove(path)
