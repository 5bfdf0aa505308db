"""The files of a deployment as they stand on this machine."""

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
    """What stands at an artefact's path now; a link's text is its target."""

    facts: FileFacts
    text: str | None


def look(path: Path, read: bool = True) -> Found:
    """What stands at a path. `read`: with its text, which for a link is the target."""
    facts = files.file_facts(path)
    if facts.kind == "link":
        return Found(facts, files.read_link(path))
    return Found(facts, files.read(path) if read and facts.kind == "file" else None)


def look_at(artefacts: Sequence[Artefact], wrote: Manifest) -> dict[Path, Found]:
    try:
        # the text of a secret is no fact that a plan needs
        found = {a.path: look(a.path, read=not a.keep) for a in artefacts}
        return {**{path: look(path) for path in map(Path, wrote.files)}, **found}
    except PermissionError as error:
        raise denied(error.filename) from None


def read_manifest(paths: Paths) -> Manifest:
    """What optictl wrote so far."""
    try:
        return manifest.parse(files.read(paths.manifest))
    except PermissionError as error:
        raise denied(error.filename) from None


def as_it_is(wrote: Manifest) -> Manifest:
    """The manifest with only that text of each file which stands there, if it is one of optictl's."""
    found = {path: look(Path(path)).text for path in wrote.files}
    return Manifest(
        {
            path: (manifest.digest(str(found[path])),) if wrote.wrote(path, found[path]) else d
            for path, d in wrote.files.items()
        }
    )
