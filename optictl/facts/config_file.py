"""Reading a deployment's configuration file. Every command imports this, so it stays light."""

from __future__ import annotations

from pathlib import Path

from optictl.deployment import config_yaml
from optictl.deployment.config import Config
from optictl.errors import ConfigMissing, FileFailure
from optictl.host import files


def load(path: Path, *, required: bool = False) -> Config:
    """The configuration at `path`, or the defaults if the file does not exist.

    Raises:
        ConfigError: the file is not valid.
        OptictlError: the file cannot be read, or is `required` and does not exist.
    """
    try:
        text = files.read(path)
    except OSError as error:
        remedy = (
            "run it with sudo"
            if isinstance(error, PermissionError)
            else "name a file that can be read"
        )
        raise FileFailure(f"cannot read {path}: {error.strerror}", remedy=remedy) from None
    if text is None:
        if required:
            raise ConfigMissing(
                f"the configuration {path} does not exist",
                remedy=f"correct the path, or create the file: optictl config show > {path}",
            )
        return Config()
    return config_yaml.parse(text, str(path))
