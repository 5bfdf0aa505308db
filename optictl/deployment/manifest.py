"""The record of the files that optictl wrote: `manifest.json` in the directory `opt`. Pure.

optictl records the digest of a new text before it writes the file, and keeps the digest of the old
text. optictl therefore recognizes its own text even when it was killed in between.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

SCHEMA = 1


def digest(text: str) -> str:
    """The SHA-256 digest of a text, in hex. It is the manifest's name for a text."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


@dataclass(frozen=True)
class Manifest:
    """The digests of the texts that optictl wrote to each path, the newest last.

    The text of a symbolic link is its target.
    """

    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def wrote(self, path: object, text: str | None) -> bool:
        """Whether optictl wrote this text to `path`."""
        return text is not None and digest(text) in self.files.get(str(path), ())

    def intending(self, texts: Mapping[str, str]) -> Manifest:
        """This manifest with the texts (path -> text) that optictl is about to write."""
        return Manifest(
            {
                **self.files,
                **{
                    path: (*self.files.get(path, ())[-1:], digest(text))
                    for path, text in texts.items()
                },
            }
        )

    def without(self, paths: Iterable[str]) -> Manifest:
        """This manifest without these paths."""
        gone = set(paths)
        return Manifest({path: digests for path, digests in self.files.items() if path not in gone})

    def dump(self) -> str:
        """The text of manifest.json."""
        return (
            json.dumps(
                {
                    "schema": SCHEMA,
                    "files": {path: list(d) for path, d in sorted(self.files.items())},
                },
                indent=1,
            )
            + "\n"
        )


def parse(text: str | None) -> Manifest:
    """The manifest in the text of a manifest.json.

    It is empty when the text is not valid: optictl then treats every file as not its own.
    """
    try:
        data = json.loads(text or "{}")
        return Manifest(
            {str(path): tuple(map(str, digests)) for path, digests in data.get("files", {}).items()}
        )
    except (ValueError, AttributeError, TypeError):
        return Manifest()
