"""A deployment's configuration file, read and parsed. Kept light: every command starts here."""

from __future__ import annotations

from pathlib import Path

from optictl.deployment import config as configuration
from optictl.deployment.config import Config
from optictl.errors import ConfigMissing, OptictlError
from optictl.host import files


def load(path: Path, *, required: bool = False) -> Config:
    """The configuration at `path`, or the defaults where there is none.

    Raises:
        ConfigError: it is there and not valid.
        OptictlError: it cannot be read, or is required and missing.
    """
    try:
        text = files.read(path)
    except OSError as error:
        remedy = (
            "run it with sudo"
            if isinstance(error, PermissionError)
            else "name a file that can be read"
        )
        raise OptictlError(f"cannot read {path}: {error.strerror}", remedy=remedy) from None
    if text is None:
        if required:
            raise ConfigMissing(
                f"there is no configuration at {path}",
                remedy=f"mend the path, or make one: optictl config show > {path}",
            )
        return Config()
    return configuration.parse(text, str(path))
