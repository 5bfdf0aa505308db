"""The files of a deployment on the disk: write, remove, and name them in the manifest."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from optictl.deployment.artefacts import Artefact
from optictl.deployment.manifest import Manifest
from optictl.deployment.paths import Paths
from optictl.errors import FileFailure
from optictl.host import files
from optictl.releases import store


def write_manifest(paths: Paths, wrote: Manifest) -> None:
    if files.read(paths.manifest) != (text := wrote.dump()):
        files.write(paths.manifest, text, 0o644)


def remove_empty(directories: Sequence[Path], below: Path) -> None:
    """Remove the empty directories of a HOME whose provider file was removed."""
    for directory in directories:
        if (
            directory.is_relative_to(below)
            and directory != below
            and directory.is_dir()
            and not any(directory.iterdir())
        ):
            files.remove(directory)


def write(artefact: Artefact, *, keep_old: bool) -> None:
    """Put an artefact in its place. `keep_old`: what is there is kept under another name.

    Raises:
        OptictlError: a directory is there, which is not replaced by a file.
    """
    kind = files.file_facts(artefact.path).kind
    if kind == "directory" and not artefact.directory:
        raise FileFailure(
            f"{artefact.path} is a directory, not a file",
            remedy=f"move {artefact.path} to another place",
        )
    if keep_old and kind != "missing":
        _keep_copy(artefact.path)
        if artefact.directory:
            files.remove(artefact.path)
    put(artefact)


def _keep_copy(path: Path) -> None:
    files.keep_aside(path, time.strftime("kept-%Y%m%dT%H%M%SZ", time.gmtime()))


def put(artefact: Artefact) -> None:
    files.make_directory(artefact.path if artefact.directory else artefact.path.parent)
    if artefact.link:
        files.replace_link(artefact.path, Path(artefact.text))
    elif not artefact.directory:
        files.write(artefact.path, artefact.text, artefact.mode)


def take_away(path: Path, *, keep_old: bool) -> None:
    """Remove a file of optictl's, or a release. `keep_old`: it is kept under another name."""
    if keep_old and files.file_facts(path).kind != "missing":
        _keep_copy(path)
    if files.file_facts(path).kind == "directory":
        store.remove(path)
    else:
        files.remove(path)
