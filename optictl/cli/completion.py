"""What the shell offers for a value: models, strategies and checks of the deployment.

A function gets the context of the command line so far. It offers nothing where the deployment
cannot be read: a shell has no place for an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from optictl.deployment.config import Config


def _config(context: typer.Context) -> Config | None:
    """The configuration of the deployment that the options so far name."""
    from optictl.cli.options import paths_of
    from optictl.deployment.paths import NAME
    from optictl.errors import OptictlError
    from optictl.facts import config_file

    given: dict[str, Any] = context.params
    try:
        paths = paths_of(given.get("root"), bool(given.get("user")), given.get("name") or NAME)
        named = given.get("config")
        return config_file.load(named or paths.config, required=False)
    except (OptictlError, OSError, typer.BadParameter):
        return None


def models(context: typer.Context, incomplete: str) -> Iterator[str]:
    """The names that LiteLLM publishes for strategies."""
    config = _config(context)
    yield from _beginning(incomplete, config.published if config else ())


def compared_models(context: typer.Context, incomplete: str) -> Iterator[str]:
    """The same, and the base models."""
    config = _config(context)
    known = (*config.published, *config.base_models) if config else ()
    yield from _beginning(incomplete, known)


def strategies(context: typer.Context, incomplete: str) -> Iterator[str]:
    """The enabled strategies."""
    config = _config(context)
    yield from _beginning(incomplete, config.strategies if config else ())


def checks(incomplete: str) -> Iterator[tuple[str, str]]:
    """The ids of the checks with their titles, and the families."""
    from optictl.checks import catalog

    known = {check.id: check.title for check in catalog.all_checks()}
    families = {name.partition(".")[0]: "every check of this family" for name in known}
    every = {**families, **known}
    yield from ((name, every[name]) for name in _beginning(incomplete, every))


def check_ids(incomplete: str) -> Iterator[tuple[str, str]]:
    """The ids of the checks with their titles."""
    from optictl.checks import catalog

    for check in catalog.all_checks():
        if check.id.startswith(incomplete):
            yield check.id, check.title


def versions(context: typer.Context, incomplete: str) -> Iterator[str]:
    """The versions of OptiLLM with a lock."""
    from optictl.releases import locks

    config = _config(context)
    profile = config.optillm.profile if config else "proxy"
    yield from _beginning(incomplete, locks.shipped_versions(profile))


def _beginning(incomplete: str, known: Any) -> Iterator[str]:
    return (name for name in known if name.startswith(incomplete))
