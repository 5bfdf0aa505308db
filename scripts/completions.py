"""Completion of optictl's command line, as a package installs it for three shells."""

from __future__ import annotations

from typer._completion_shared import get_completion_script

#: Shell -> where it looks for completion, below /usr/share.
PLACES = {
    "bash": "bash-completion/completions/optictl",
    "zsh": "zsh/vendor-completions/_optictl",
    "fish": "fish/vendor_completions.d/optictl.fish",
}
#: zsh loads the file as a function of that name, for the first completion: it must also complete.
_ZSH_FIRST = '\n[ "$funcstack[1]" = _optictl ] && _optictl_completion "$@"\n'


def script(shell: str) -> str:
    """The script of a shell. It asks the program for the words at that moment."""
    text = get_completion_script(
        prog_name="optictl", complete_var="_OPTICTL_COMPLETE", shell=shell
    ).strip()
    return f"{text}\n{_ZSH_FIRST if shell == 'zsh' else ''}"
