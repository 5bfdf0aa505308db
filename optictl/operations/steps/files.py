"""Steps that write, change and remove files."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from optictl.deployment.artefacts import Artefact
from optictl.facts import installed_files
from optictl.host import files
from optictl.operations import file_changes
from optictl.operations.context import Context
from optictl.operations.steps.base import Step


@dataclass(frozen=True)
class FileStep(Step):
    """A step about one file of the deployment."""

    artefact: Artefact

    @property
    def target(self) -> str:
        return str(self.artefact.path)

    def undo(self, context: Context) -> None:
        """Put the text back that was there. Directories and the operator's own files are not in
        the state before.
        """
        path = self.artefact.path
        if context.before is None or path not in context.before.texts:
            return
        text = context.before.texts[path]
        if text is None:
            files.remove(path)
        elif installed_files.read(path).text != text:
            mode = context.before.modes[path]
            file_changes.put(replace(self.artefact, text=text, mode=mode))


@dataclass(frozen=True)
class _WriteStep(FileStep):
    """`of_hand_made`: it takes the place of a unit that was written by hand, which is kept in
    its record.
    """

    of_hand_made: bool = False

    def apply(self, context: Context) -> None:
        if self.of_hand_made:
            context.keep_hand_made_service()
        file_changes.write(self.artefact, keep_old=self.edited and not self.of_hand_made)


@dataclass(frozen=True)
class CreateFile(_WriteStep):
    """Write a file, directory or link that is missing."""

    action = "create"
    done = "created"
    effect = "add"


@dataclass(frozen=True)
class ReplaceFile(_WriteStep):
    """Write a file, directory or link in the place of what is there; an edited one is kept under
    another name.
    """

    action = "replace"
    done = "replaced"
    effect = "change"


@dataclass(frozen=True)
class EditConfiguration(FileStep):
    """Write the new version into the operator's configuration. optictl does not own that file
    afterwards.
    """

    action = "configure"
    done = "edited"

    def apply(self, context: Context) -> None:
        file_changes.write(self.artefact, keep_old=False)


@dataclass(frozen=True)
class KeepLock(FileStep):
    """Keep the lock of a proven release next to the configuration, where `install` finds it."""

    action = "keep"
    done = "kept"
    effect = "add"

    def apply(self, context: Context) -> None:
        self.keep()

    def keep(self) -> None:
        """Write it."""
        files.make_directory(self.artefact.path.parent)
        file_changes.write(self.artefact, keep_old=False)


@dataclass(frozen=True)
class SetMode(FileStep):
    """Give a file its mode."""

    action = "mode"
    done = "mode set on"
    effect = "change"

    def apply(self, context: Context) -> None:
        files.set_mode(self.artefact.path, self.artefact.mode)


@dataclass(frozen=True)
class SetOwner(FileStep):
    """Give a file its owner, and the mode that it may have."""

    action = "owner"
    done = "owner set on"
    effect = "change"

    def apply(self, context: Context) -> None:
        files.set_owner(self.artefact.path)
        files.set_mode(self.artefact.path, self.artefact.mode)


@dataclass(frozen=True)
class RecordFiles(Step):
    """Name files in the manifest that are right already. An installation writes it before its first
    and after its last step, so that nothing is left to apply here.
    """

    action = "replace"
    done = "replaced"
    effect = "change"

    manifest: Path

    @property
    def target(self) -> str:
        return str(self.manifest)

    def apply(self, context: Context) -> None:
        """Done by the installation itself."""


@dataclass(frozen=True)
class PathStep(Step):
    """A step about one path that is no artefact of the deployment."""

    path: Path

    @property
    def target(self) -> str:
        return str(self.path)


@dataclass(frozen=True)
class MoveAside(PathStep):
    """Remove a drop-in of the unit that was written by hand; the record of that service keeps
    it.
    """

    action = "aside"
    done = "moved aside"

    def apply(self, context: Context) -> None:
        context.keep_hand_made_service()
        files.remove(self.path)


@dataclass(frozen=True)
class Remove(PathStep):
    """Remove a file, a link, a directory or a release; an edited file is kept under another
    name.
    """

    action = "remove"
    done = "removed"
    effect = "remove"

    def apply(self, context: Context) -> None:
        file_changes.take_away(self.path, keep_old=self.edited)
