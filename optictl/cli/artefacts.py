"""render-* and config: text from the configuration, to stdout. They need no root and no machine."""

from __future__ import annotations

import typer

from optictl.cli.options import ConfigOption, NameOption, Place, RootOption, UserOption, place
from optictl.deployment.paths import NAME

config_app = typer.Typer(
    no_args_is_help=True,
    help="About the configuration file.",
    epilog="Example: optictl config show",
)


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command(
        "render-unit",
        rich_help_panel="Artefacts",
        epilog="Example: optictl render-unit > optillm-proxy.service",
    )(render_unit)
    app.command(
        "render-socket", rich_help_panel="Artefacts", epilog="Example: optictl render-socket"
    )(render_socket)
    app.command(
        "render-upstream-socket",
        rich_help_panel="Artefacts",
        epilog="Example: optictl render-upstream-socket",
    )(render_upstream_socket)
    app.command(
        "render-upstream-service",
        rich_help_panel="Artefacts",
        epilog="Example: optictl render-upstream-service",
    )(render_upstream_service)
    app.command(
        "render-check-unit",
        rich_help_panel="Artefacts",
        epilog="Example: optictl render-check-unit",
    )(render_check_unit)
    app.command(
        "render-check-timer",
        rich_help_panel="Artefacts",
        epilog="Example: optictl render-check-timer",
    )(render_check_timer)
    app.command("render-env", rich_help_panel="Artefacts", epilog="Example: optictl render-env")(
        render_env
    )
    app.command(
        "render-proxy-config",
        rich_help_panel="Artefacts",
        epilog="Example: optictl render-proxy-config",
    )(render_proxy_config)
    app.command(
        "render-litellm",
        rich_help_panel="Artefacts",
        epilog="Example: optictl render-litellm >> litellm.yaml",
    )(render_litellm)
    config_app.command("schema", epilog="Example: optictl config schema > optictl.schema.json")(
        schema
    )
    config_app.command("show", epilog="Example: optictl config show --config my.yaml")(show)
    app.add_typer(config_app, name="config", rich_help_panel="Artefacts")


def _artefact(where: Place, name: str) -> None:
    from optictl.deployment import render
    from optictl.output import console

    config = where.config()
    texts = {
        "unit": lambda: render.unit(config, where.paths),
        "socket": lambda: render.socket(config, where.paths),
        "upstream-socket": lambda: render.upstream_socket(config, where.paths),
        "upstream-service": lambda: render.upstream_service(config, where.paths),
        "check-unit": lambda: render.check_service(config, where.paths),
        "check-timer": lambda: render.check_timer(where.paths),
        "env": lambda: render.env(config),
        "proxy-config": lambda: render.proxy_config(config),
        "litellm": lambda: render.litellm(config, where.paths),
        "configuration": lambda: render.configuration(config),
    }
    console.raw(texts[name]())


def render_unit(
    config: ConfigOption = None,
    root: RootOption = None,
    user: UserOption = False,
    name: NameOption = NAME,
) -> None:
    """Print optillm-proxy.service."""
    _artefact(place(config, root, user, name), "unit")


def render_socket(
    config: ConfigOption = None,
    root: RootOption = None,
    user: UserOption = False,
    name: NameOption = NAME,
) -> None:
    """Print optillm-proxy.socket."""
    _artefact(place(config, root, user, name), "socket")


def render_upstream_socket(
    config: ConfigOption = None,
    root: RootOption = None,
    user: UserOption = False,
    name: NameOption = NAME,
) -> None:
    """Print optillm-proxy-upstream.socket: a sealed service's one way to LiteLLM."""
    _artefact(place(config, root, user, name), "upstream-socket")


def render_upstream_service(
    config: ConfigOption = None,
    root: RootOption = None,
    user: UserOption = False,
    name: NameOption = NAME,
) -> None:
    """Print optillm-proxy-upstream.service, the relay behind that socket."""
    _artefact(place(config, root, user, name), "upstream-service")


def render_check_unit(
    config: ConfigOption = None,
    root: RootOption = None,
    user: UserOption = False,
    name: NameOption = NAME,
) -> None:
    """Print optillm-proxy-check.service, which checks the deployment. install writes it with the place of its own program."""
    _artefact(place(config, root, user, name), "check-unit")


def render_check_timer(
    config: ConfigOption = None,
    root: RootOption = None,
    user: UserOption = False,
    name: NameOption = NAME,
) -> None:
    """Print optillm-proxy-check.timer, which has that done every minute."""
    _artefact(place(config, root, user, name), "check-timer")


def render_env(
    config: ConfigOption = None,
    root: RootOption = None,
    user: UserOption = False,
    name: NameOption = NAME,
) -> None:
    """Print the env file's skeleton. It never prints a secret's value."""
    _artefact(place(config, root, user, name), "env")


def render_proxy_config(
    config: ConfigOption = None,
    root: RootOption = None,
    user: UserOption = False,
    name: NameOption = NAME,
) -> None:
    """Print proxy_config.yaml: LiteLLM as the only provider."""
    _artefact(place(config, root, user, name), "proxy-config")


def render_litellm(
    config: ConfigOption = None,
    root: RootOption = None,
    user: UserOption = False,
    name: NameOption = NAME,
) -> None:
    """Print the model_list entries that publish every strategy in LiteLLM."""
    _artefact(place(config, root, user, name), "litellm")


def show(
    config: ConfigOption = None,
    root: RootOption = None,
    user: UserOption = False,
    name: NameOption = NAME,
) -> None:
    """Print the configuration in force, defaults filled in."""
    _artefact(place(config, root, user, name), "configuration")


def schema() -> None:
    """Print the JSON Schema of optictl.yaml, for editors."""
    import json

    from optictl.deployment import config
    from optictl.output import console

    console.raw(json.dumps(config.schema(), indent=2) + "\n")
