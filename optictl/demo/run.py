"""The demonstration: a whole deployment without root, systemd or LiteLLM.

The deployment is in a private directory below the user's cache, and the stand-in replaces
LiteLLM. A second run reuses the release that the first one built.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from optictl.checks import catalog
from optictl.deployment import paths, render
from optictl.deployment.config import Config
from optictl.deployment.paths import Paths
from optictl.errors import Locked
from optictl.facts.deployment import Deployment
from optictl.host import files, network
from optictl.operations import install
from optictl.operations.installation import Installation
from optictl.operations.proxy_key import new_proxy_key
from optictl.operations.steps import BuildRelease, Step
from optictl.proof import evidence, trial
from optictl.proof.standin import StandIn
from optictl.results import Progress, Result

#: Families of checks about units and LiteLLM's configuration.
#: The demonstration has neither.
_ELSEWHERE = ("unit", "socket", "service", "credential", "relay", "routing")


def directory() -> Path:
    """The directory of the demonstration.

    For root it is not root's cache, which other users cannot enter.
    """
    if os.geteuid() == 0:
        return Path("/var/cache/optictl/demo")
    cache = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(cache) if cache.startswith("/") else Path.home() / ".cache") / "optictl" / "demo"


@dataclass(frozen=True)
class Demo:
    """A running demonstration."""

    config: Config
    paths: Paths
    proxy_key: str

    def checks(self) -> list[Result]:
        """The results of all checks that apply without systemd and LiteLLM."""
        checks = [c for c in catalog.all_checks() if c.family not in _ELSEWHERE]
        return catalog.run(checks, Deployment(self.paths))

    def smokes(self) -> Iterator[Result]:
        """The result of each enabled strategy, as soon as it is known."""
        upstream_key = Deployment(self.paths).upstream_key
        plain = evidence.plain_usage(
            self.config, upstream_key, evidence.PROMPT, self.config.model, 30
        )
        for strategy in self.config.strategies:
            model = f"{strategy}-{self.config.model}"
            yield evidence.judge(
                model,
                self.config,
                evidence.run(self.config.url, self.proxy_key, model, evidence.PROMPT, 60),
                plain,
            )


def _write_operators_files(place: Paths, config: Config, upstream_key: str, proxy_key: str) -> None:
    files.make_directory(place.etc)
    files.write(place.config, render.configuration(config), 0o644)
    files.write(place.env, f"OPENAI_API_KEY={upstream_key}\n", 0o600)
    files.write(place.proxy_key, proxy_key + "\n", 0o600)


@contextmanager
def running(root: Path, progress: Progress, done: Callable[[Step], None]) -> Iterator[Demo]:
    """Install or reuse a deployment below `root`, and run it on free ports against the stand-in."""
    files.make_directory(root)
    try:
        with files.exclusive(root / ".lock"):
            yield from _running(root, progress, done)
    except Locked as holder:
        raise Locked(f"{holder} already runs the demonstration", remedy="stop it first") from None


def _running(root: Path, progress: Progress, done: Callable[[Step], None]) -> Iterator[Demo]:
    place = paths.system(root)
    # new keys and ports in every run: only the release is reused
    upstream_key, proxy_key = f"stand-in-{secrets.token_hex(8)}", new_proxy_key()
    with StandIn(models=(Config().model,), key=upstream_key).running() as upstream:
        config = Config().moved(network.free_port(), upstream.base_url, drain=5)
        _write_operators_files(place, config, upstream_key, proxy_key)

        def plan() -> Installation:
            return install.plan_install(config, place)

        installation = plan()
        if not any(isinstance(step, BuildRelease) for step in installation.steps):
            progress(f"using the existing release {installation.want.id}")
        install.apply_install(installation, plan, None, None, progress, done)
        progress(
            f"starting OptiLLM on port {config.listen.port}, "
            f"in front of the stand-in at {upstream.base_url}"
        )
        keys = trial.Secrets.of(proxy_key, upstream_key)
        home, log = render.home(config, place), root / "service.log"
        with trial.started(config, place.current, keys, home=home, log=log):
            yield Demo(config, place, proxy_key)
