"""What optictl wrote: which files, with which text. Pure; it lies in `opt/manifest.json`.

An entry is written down before the file is, with the digest of the text to come behind the
one that stands there, so that after a kill at any point each text is known for optictl's own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

SCHEMA = 1


def digest(text: str) -> str:
    """How the manifest names a text."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


@dataclass(frozen=True)
class Manifest:
    """path -> digests of the texts that optictl wrote there, the newest last. A link's text is its target."""

    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def wrote(self, path: object, text: str | None) -> bool:
        """Whether the text that stands at `path` is one that optictl put there."""
        return text is not None and digest(text) in self.files.get(str(path), ())

    def intending(self, texts: Mapping[str, str]) -> Manifest:
        """With texts that are about to be written."""
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
        """With these files forgotten."""
        gone = set(paths)
        return Manifest({path: digests for path, digests in self.files.items() if path not in gone})

    def dump(self) -> str:
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
    """The text of a manifest.json -> Manifest. A broken one names nothing: then everything is somebody else's."""
    try:
        data = json.loads(text or "{}")
        return Manifest(
            {str(path): tuple(map(str, digests)) for path, digests in data.get("files", {}).items()}
        )
    except (ValueError, AttributeError, TypeError):
        return Manifest()
