"""`optictl run`: the service as a child of the terminal."""

from __future__ import annotations

import signal
from types import FrameType

from optictl import releases, render, report, service, supervise
from optictl.checks.registry import Skip
from optictl.checks.site import Site
from optictl.config import Config
from optictl.errors import OptictlError
from optictl.host import processes
from optictl.paths import Paths


def run(config: Config, paths: Paths) -> int:
    """Serve until told to stop; the service's exit code (78: it refused its configuration).

    Raises:
        OptictlError: nothing is installed, or a key is missing.
    """
    release = releases.in_force(paths)
    if release is None:
        raise OptictlError(f"no release is in force at {paths.current}", remedy=paths.command("install"))
    if any(one.port == config.listen.port for one in processes.listeners()):
        raise OptictlError(
            f"port {config.listen.port} is taken already",
            remedy=f"{paths.command('check --only process')} tells by whom; stop it first",
        )
    site = Site(paths)
    try:
        proxy_key, upstream_key = site.proxy_key, site.upstream_key
    except Skip as missing:
        raise OptictlError(str(missing), remedy=f"{paths.command('init')}, and OPENAI_API_KEY=... in {paths.env}") from None
    stopping = False

    def stop(number: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        if stopping:  # asked twice: do not wait for what is in flight
            process.kill()
        stopping = True
        report.note(f"draining, at most {config.timeouts.drain} s; once more to stop at once")
        process.send_signal(signal.SIGTERM)

    with service.running(
        config, paths.current, render.home(config, paths), proxy_key=proxy_key, upstream_key=upstream_key, output=None,
        user=paths.name, flags=supervise.host(paths).flags,
    ) as process:  # fmt: skip
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, stop)
        report.note(f"{release} as process {process.pid} on {config.url}")
        code = process.wait()
    return 0 if stopping and code in (0, -signal.SIGTERM) else abs(code)
