"""What the packages of optictl get when they are built: the README's links, and the commit.

The README links to files of the repository. On a package index those links lead nowhere, so there
they are absolute. The commit becomes optictl/commit.txt, which `optictl --version` shows; an sdist
passes it on to the wheels that are built from it.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

_IMAGES = (".png", ".svg")


def absolute_links(text: str, repository: str, tag: str) -> str:
    """Markdown whose relative links lead into the repository, at a tag.

    `repository`: the address of the repository, without a slash at the end.
    """

    def link(match: re.Match[str]) -> str:
        target = match[1]
        if re.match(r"[a-z]+:|#", target):
            return match[0]
        kind = "raw" if target.endswith(_IMAGES) else "blob"
        return f"]({repository}/{kind}/{tag}/{target})"

    return re.sub(r"\]\(([^)\s]+)\)", link, text)


def commit(root: Path) -> str:
    """The commit of a checkout, "-dirty" behind it when files differ. "" without git.

    An sdist has no repository; it has the file that this hook wrote.
    """
    written = root / "optictl/commit.txt"
    if written.is_file():
        return written.read_text(encoding="utf-8").strip()
    if not (root / ".git").exists():
        return ""  # the repository around an unpacked sdist is another one
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        asked = subprocess.run(
            [*command, "--exclude=*"], capture_output=True, text=True, check=True, timeout=30
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return asked.stdout.strip()


class Readme(MetadataHookInterface):
    """The README as the description of the package."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Add the field `readme`."""
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        linked = absolute_links(text, metadata["urls"]["Source"], f"v{metadata['version']}")
        metadata["readme"] = {"content-type": "text/markdown", "text": linked}


class Commit(BuildHookInterface[Any]):
    """optictl/commit.txt, in wheels and sdists."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Write the file, where the commit is known. `version`: "editable" or "standard"."""
        name = commit(Path(self.root))
        if version == "editable" or not name:
            return
        # an sdist's own file is excluded, and added here: the order of the files is then the same
        self._directory = tempfile.TemporaryDirectory()
        file = Path(self._directory.name, "commit.txt")
        file.write_text(f"{name}\n", encoding="utf-8")
        file.chmod(0o644)
        build_data["force_include"][str(file)] = "optictl/commit.txt"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the temporary file."""
        if hasattr(self, "_directory"):
            self._directory.cleanup()
