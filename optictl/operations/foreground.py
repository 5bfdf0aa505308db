"""`optictl run`: the service as a child of the terminal."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from optictl.checks import catalog
from optictl.deployment import render
from optictl.deployment.config import Config
from optictl.deployment.paths import Paths
from optictl.errors import NotInstalled, OptictlError
from optictl.facts import units
from optictl.facts.deployment import Deployment
from optictl.guard.settings import EXIT_CONFIG
from optictl.host import files, processes
from optictl.proof import trial
from optictl.releases import store
from optictl.results import Progress

#: The checks of what the guard refuses in the operator's files.
_REFUSED = ("env", "key.strength", "proxy-config.litellm-only")


def _remedies(deployment: Deployment) -> str:
    """What puts those files right, as `check` tells it; "" where it finds nothing wrong with them."""
    failed = [
        r
        for r in catalog.run(catalog.select(_REFUSED), deployment)
        if r.failed and r.root_cause == r.id
    ]
    # each ends with the start: once is enough
    start = f" && {deployment.restart}"
    steps = dict.fromkeys(r.remedy.removesuffix(start) for r in failed if r.remedy)
    return " && ".join(steps) + (start if any(r.remedy.endswith(start) for r in failed) else "")


def run(
    config: Config,
    paths: Paths,
    config_path: Path,
    say: Progress,
    complain: Callable[[OptictlError], None],
) -> int:
    """Serve until told to stop; the service's exit code (78: what the unit refuses too).

    Raises:
        OptictlError: nothing is installed, or the port is taken.
    """
    release = store.active_release(paths)
    if release is None:
        raise NotInstalled(
            f"no release is in force at {paths.current}", remedy=paths.command("install")
        )
    if any(one.port == config.listen.port for one in processes.listeners()):
        raise OptictlError(
            f"port {config.listen.port} is taken already",
            remedy=f"{paths.command('check --only process')} tells by whom; stop it first",
        )
    deployment = Deployment(paths, config_path)
    proxy_key, env_file = files.read_bytes(paths.proxy_key), files.read_bytes(paths.env)
    if proxy_key is None or env_file is None:
        missing = paths.proxy_key if proxy_key is None else paths.env
        complain(
            OptictlError(
                f"there is no {missing}: the service cannot start", remedy=_remedies(deployment)
            )
        )
        return EXIT_CONFIG
    stopping = False

    def stop(number: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        if stopping:  # asked twice: do not wait for what is in flight
            process.kill()
        stopping = True
        say(f"draining, at most {config.timeouts.drain} s; once more to stop at once")
        process.send_signal(signal.SIGTERM)

    with trial.running(
        config,
        paths.current,
        render.home(config, paths),
        trial.Secrets(proxy_key, env_file),
        output=None,
        user=paths.name,
        flags=units.host(paths).flags,
    ) as process:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, stop)
        say(f"{release} as process {process.pid} on {config.url}")
        code = process.wait()
    if code == EXIT_CONFIG and (remedy := _remedies(deployment)):
        complain(OptictlError("the service refused to start, for the reason above", remedy=remedy))
    return 0 if stopping and code in (0, -signal.SIGTERM) else abs(code)
