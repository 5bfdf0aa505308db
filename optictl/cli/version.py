"""--version: this optictl, the OptiLLM that it installs, and the Python that it runs on."""

from __future__ import annotations

import platform
import re
import sys


def text() -> str:
    """The lines of `optictl --version`. The first one is `optictl VERSION`, as scripts read it."""
    from optictl import __version__
    from optictl.deployment.render import template_directory
    from optictl.deployment.version_order import version_order
    from optictl.host import program

    # not from releases.locks: its imports would take as long as all the rest
    names = (path.name for path in template_directory().glob("locks/optillm-*-proxy.txt"))
    locked = (re.fullmatch(r"optillm-(.+)-proxy\.txt", name) for name in names)
    versions = sorted((found[1] for found in locked if found), key=version_order)
    return (
        f"optictl {__version__}\n"
        f"commit  {program.commit() or 'unknown'}\n"
        f"OptiLLM {', '.join(versions)}\n"
        f"Python  {platform.python_version()} ({sys.executable})\n"
    )
