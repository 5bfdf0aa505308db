"""`optictl run`: the service in the foreground, as a child of the terminal."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from optictl.checks import catalog
from optictl.deployment import render
from optictl.deployment.config import Config
from optictl.deployment.paths import Paths
from optictl.errors import MissingFact, NotReady, OptictlError, PortInUse
from optictl.facts import units
from optictl.facts.deployment import Deployment
from optictl.guard.settings import EXIT_CONFIG
from optictl.host import files, processes
from optictl.proof import trial
from optictl.releases import store
from optictl.results import Progress

#: The checks of the operator's files that decide whether the guard starts.
_REFUSED = ("env", "key.strength", "proxy-config.litellm-only")


def _fixes(deployment: Deployment) -> str:
    """The commands that fix those files, as `check` names them; "" where it finds nothing wrong
    with them.
    """
    results = catalog.run(catalog.select(_REFUSED), deployment)
    failed = [result for result in results if result.failed and result.root_cause == result.id]
    # each ends with the start: once is enough
    start = f" && {deployment.restart}"
    commands = dict.fromkeys(r.remedy.removesuffix(start) for r in failed if r.remedy)
    needs_start = any(result.remedy.endswith(start) for result in failed)
    return " && ".join(commands) + (start if needs_start else "")


def run(
    config: Config,
    paths: Paths,
    config_path: Path,
    say: Progress,
    complain: Callable[[OptictlError], None],
) -> int:
    """Serve until a signal stops it; the service's exit code (78: what the unit refuses too).

    Raises:
        OptictlError: nothing is installed, or the port is in use.
    """
    release = _active_release(config, paths)
    deployment = Deployment(paths, config_path)
    proxy_key, env_file = files.read_bytes(paths.proxy_key), files.read_bytes(paths.env)
    if proxy_key is None or env_file is None:
        missing = paths.proxy_key if proxy_key is None else paths.env
        what = f"there is no {missing}: the service cannot start"
        complain(MissingFact(what, remedy=_fixes(deployment)))
        return EXIT_CONFIG
    with trial.running(
        config,
        paths.current,
        render.home(config, paths),
        trial.Secrets(proxy_key, env_file),
        output=None,
        user=paths.name,
        flags=units.host(paths).flags,
        deployment=paths.name,
    ) as process:
        stop = _StopOnSignal(process, config.timeouts.drain, say)
        say(f"{release} as process {process.pid} on {config.url}")
        code = process.wait()
    if code == EXIT_CONFIG and (commands := _fixes(deployment)):
        complain(NotReady("the service refused to start, see its last lines", remedy=commands))
    return 0 if stop.was_asked and code in (0, -signal.SIGTERM) else abs(code)


def _active_release(config: Config, paths: Paths) -> str:
    """The release to run.

    Raises:
        OptictlError: nothing is installed, or the port is in use.
    """
    release = store.require_active(paths)
    port = config.listen.port
    if any(listener.port == port for listener in processes.listeners()):
        raise PortInUse(
            f"port {port} is in use",
            remedy=f"{paths.command('check --only process')} names the process; stop it first",
        )
    return release


class _StopOnSignal:
    """Ctrl-C or SIGTERM drains the service; a second one kills it."""

    def __init__(self, process: subprocess.Popen[bytes], drain: int, say: Progress) -> None:
        self._process, self._drain, self._say = process, drain, say
        self.was_asked = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        if self.was_asked:  # a second signal: do not wait for requests in flight
            self._process.kill()
        self.was_asked = True
        self._say(f"draining, at most {self._drain} s; press Ctrl-C again to stop at once")
        self._process.send_signal(signal.SIGTERM)
