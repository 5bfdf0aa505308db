"""`optictl check`: the checks of a deployment, once, damped or again and again."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from optictl.checks import catalog, nagios, prometheus, watch
from optictl.checks.engine import Check
from optictl.checks.nagios import Hysteresis
from optictl.checks.watch import Round
from optictl.deployment.paths import Paths
from optictl.errors import ConfigError
from optictl.facts import config_file
from optictl.facts.deployment import Deployment
from optictl.host import files
from optictl.operations import escape_attempts
from optictl.results import Result, good


@dataclass
class Examination:
    """Runs the checks each time it is called. `seconds` is how long the last run took.

    `explicit`: the configuration was named, so it must be there.
    `attack`: escape attempts run, too.
    `textfile`: where the metrics are written.
    """

    paths: Paths
    config_path: Path
    explicit: bool
    checks: Sequence[Check]
    litellm_config: Path | None = None
    litellm_env: Path | None = None
    attack: bool = False
    textfile: Path | None = None
    seconds: float = 0.0

    def __call__(self) -> list[Result]:
        deployment = Deployment(self.paths, self.config_path, self.litellm_config, self.litellm_env)
        # config.valid reports what is wrong in the file; only that it is missing is an error
        if self.explicit:
            with suppress(ConfigError):
                config_file.load(self.config_path, required=True)
        since = time.monotonic()
        results = catalog.run(self.checks, deployment)
        if self.attack:
            results += escape_attempts.attack(deployment)
        self.seconds = time.monotonic() - since
        if self.textfile is not None:
            metrics = prometheus.prometheus(results, self.paths.name, self.seconds, time.time())
            files.write(self.textfile.absolute(), metrics, 0o644)
        return results


def damped(
    results: Sequence[Result], file: Path, fail_after: int, well_after: int
) -> tuple[Hysteresis, Hysteresis]:
    """The verdict before and after one more run; the file remembers it."""
    before = nagios.hysteresis(files.read(file))
    now = before.after(good(results), fail_after, well_after)
    files.write(file, now.dump(), 0o600)
    return before, now


def rounds(examination: Examination, pause: float) -> Iterator[Round]:
    """One run after the other, for ever."""
    return watch.rounds(examination, lambda: time.sleep(pause))
