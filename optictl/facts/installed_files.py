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
class InstalledFile:
    """What is at an artefact's path now; the text of a link is its target."""

    attributes: FileFacts
    text: str | None


def read(path: Path, with_text: bool = True) -> InstalledFile:
    """What is at a path. `with_text`: also read a file's text (a link's target is always read)."""
    attributes = files.file_facts(path)
    if attributes.kind == "link":
        return InstalledFile(attributes, files.read_link(path))
    text = files.read(path) if with_text and attributes.kind == "file" else None
    return InstalledFile(attributes, text)


def read_all(artefacts: Sequence[Artefact], wrote: Manifest) -> dict[Path, InstalledFile]:
    """What is at the paths of these artefacts and of the files that optictl wrote."""
    try:
        # a plan does not need the text of secrets
        of_artefacts = {a.path: read(a.path, with_text=not a.keep) for a in artefacts}
        return {**{path: read(path) for path in map(Path, wrote.files)}, **of_artefacts}
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
    texts = {path: read(Path(path)).text for path in wrote.files}
    return Manifest(
        {
            path: (manifest.digest(str(texts[path])),) if wrote.wrote(path, texts[path]) else d
            for path, d in wrote.files.items()
        }
    )
