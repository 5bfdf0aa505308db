"""render-*: texts from the configuration, to the standard output.

They need no root and no machine.
"""

from __future__ import annotations

from collections.abc import Callable

import typer

from optictl.cli.options import DEPLOYMENT, Call, command, deployment

#: command -> (the first words of its help, example)
_ARTEFACTS = {
    "unit": (
        "Print optillm-proxy.service.",
        "optictl render-unit > optillm-proxy.service",
    ),
    "socket": ("Print optillm-proxy.socket.", "optictl render-socket"),
    "upstream-socket": (
        "Print optillm-proxy-upstream.socket: a sealed service's one way to LiteLLM.",
        "optictl render-upstream-socket",
    ),
    "upstream-service": (
        "Print optillm-proxy-upstream.service, the relay behind that socket.",
        "optictl render-upstream-service",
    ),
    "check-unit": (
        "Print optillm-proxy-check.service, which checks the deployment."
        " install writes it with the path of that optictl.",
        "optictl render-check-unit",
    ),
    "check-timer": (
        "Print optillm-proxy-check.timer, which runs that check every minute.",
        "optictl render-check-timer",
    ),
    "env": (
        "Print the env file's skeleton. It never prints a secret's value.",
        "optictl render-env",
    ),
    "proxy-config": (
        "Print proxy_config.yaml: LiteLLM as the only provider.",
        "optictl render-proxy-config",
    ),
}


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    for name, (help_text, example) in _ARTEFACTS.items():
        command(
            app,
            f"render-{name}",
            _printer(name, help_text),
            example=example,
            shared=DEPLOYMENT,
            resolve=deployment,
            panel="Artefacts",
        )


def _printer(name: str, help_text: str) -> Callable[[Call], None]:
    def render(call: Call) -> None:
        from optictl.deployment.render import artefact

        call.terminal.raw(artefact(name, call.config(), call.paths))

    render.__doc__ = help_text
    return render
