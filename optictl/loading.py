"""A deployment's configuration file, read and parsed. Kept light: every command starts here."""

from __future__ import annotations

from pathlib import Path

from optictl import config as configuration
from optictl.config import Config
from optictl.errors import OptictlError
from optictl.host import files


def load(path: Path, *, required: bool = False) -> Config:
    """The configuration at `path`, or the defaults where there is none.

    Raises:
        ConfigError: it is there and not valid.
        OptictlError: it cannot be read, or is required and missing.
    """
    try:
        text = files.read(path)
    except (OSError, UnicodeDecodeError) as error:
        raise OptictlError(f"cannot read {path}: {getattr(error, 'strerror', error)}", remedy="run it with sudo") from None
    if text is None:
        if required:
            raise OptictlError(f"there is no configuration at {path}", remedy="optictl init")
        return Config()
    return configuration.parse(text, str(path))
