"""The files of a deployment as they are on this machine now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from optictl.deployment import manifest
from optictl.deployment.artefacts import Artefact
from optictl.deployment.manifest import Manifest
from optictl.deployment.paths import Paths
from optictl.errors import denied
from optictl.host import files
from optictl.host.files import FileFacts


@dataclass(frozen=True)
class Found:
    """What is at an artefact's path now; the text of a link is its target."""

    facts: FileFacts
    text: str | None


def look(path: Path, read: bool = True) -> Found:
    """What is at a path. `read`: whether to read a file's text (a link's target is always read)."""
    facts = files.file_facts(path)
    if facts.kind == "link":
        return Found(facts, files.read_link(path))
    return Found(facts, files.read(path) if read and facts.kind == "file" else None)


def look_at(artefacts: Sequence[Artefact], wrote: Manifest) -> dict[Path, Found]:
    """What is at the paths of these artefacts and of the files that optictl wrote."""
    try:
        # a plan does not need the text of secrets
        found = {a.path: look(a.path, read=not a.keep) for a in artefacts}
        return {**{path: look(path) for path in map(Path, wrote.files)}, **found}
    except PermissionError as error:
        raise denied(error.filename) from None


def read_manifest(paths: Paths) -> Manifest:
    """The manifest: which files optictl wrote, with which texts."""
    try:
        return manifest.parse(files.read(paths.manifest))
    except PermissionError as error:
        raise denied(error.filename) from None


def as_it_is(wrote: Manifest) -> Manifest:
    """The manifest, reduced to the current text of each file that optictl wrote."""
    found = {path: look(Path(path)).text for path in wrote.files}
    return Manifest(
        {
            path: (manifest.digest(str(found[path])),) if wrote.wrote(path, found[path]) else d
            for path, d in wrote.files.items()
        }
    )
