"""What a deployment takes from a hand-made service, and what it cannot keep. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Setting:
    """A value for optictl.yaml: key (`listen.port`), value, and source."""

    key: str
    value: Any
    where: str


@dataclass(frozen=True)
class NotTaken:
    """A property of the service that a deployment cannot keep, the reason, and the fix."""

    what: str
    why: str
    remedy: str = ""
