"""render: a file of a deployment from the configuration, to the standard output.

It needs no root and no machine. `render-unit` is a command, too; the other names with a hyphen
are older spellings, which the help does not show.
"""

from __future__ import annotations

from collections.abc import Callable

import typer

from optictl.cli import help_pages, render_litellm
from optictl.cli.options import DEPLOYMENT, Call, command, deployment

#: artefact -> the first words of its help
_ARTEFACTS = {
    "unit": "Print optillm-proxy.service.",
    "socket": "Print optillm-proxy.socket.",
    "upstream-socket": "Print optillm-proxy-upstream.socket: a sealed service's one way to"
    " LiteLLM.",
    "upstream-service": "Print optillm-proxy-upstream.service, the relay behind that socket.",
    "check-unit": "Print optillm-proxy-check.service, which checks the deployment."
    " install writes it with the path of that optictl.",
    "check-timer": "Print optillm-proxy-check.timer, which runs that check every minute.",
    "env": "Print the env file's skeleton. It never prints a secret's value.",
    "proxy-config": "Print proxy_config.yaml: LiteLLM as the only provider.",
}
#: The spelling of the contract, which has no hidden name.
_WITH_HYPHEN = "unit"
_PANEL = "Artefacts"


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    group = typer.Typer(
        cls=help_pages.Group,
        no_args_is_help=True,
        help="Print a file of the deployment, and nothing else. Needs no root and no machine.",
        epilog="Example: optictl render litellm > optillm.yaml",
    )
    functions = {name: _printer(name, text) for name, text in _ARTEFACTS.items()}
    functions["litellm"] = render_litellm.render_litellm
    for name, function in functions.items():
        spelled = {f"render {name}": (group, name), f"render-{name}": (app, f"render-{name}")}
        for typed, (owner, word) in spelled.items():
            command(
                owner,
                word,
                function,
                example=f"optictl {typed} > {_FILES.get(name, name)}",
                shared=DEPLOYMENT,
                resolve=deployment,
                panel=_PANEL if owner is app else None,
                hidden=owner is app and name != _WITH_HYPHEN,
            )
    app.add_typer(group, name="render", rich_help_panel=_PANEL)


#: artefact -> the file that the example of its help writes
_FILES = {
    "unit": "optillm-proxy.service",
    "socket": "optillm-proxy.socket",
    "upstream-socket": "optillm-proxy-upstream.socket",
    "upstream-service": "optillm-proxy-upstream.service",
    "check-unit": "optillm-proxy-check.service",
    "check-timer": "optillm-proxy-check.timer",
    "proxy-config": "proxy_config.yaml",
    "litellm": "optillm.yaml",
}


def _printer(name: str, help_text: str) -> Callable[[Call], None]:
    def render(call: Call) -> None:
        from optictl.deployment.render import artefact

        call.terminal.raw(artefact(name, call.config(), call.paths))

    render.__doc__ = help_text
    return render
