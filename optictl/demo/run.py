"""The demonstration: everything, without root, systemd or LiteLLM.

A private directory under the user's cache holds a whole deployment; the stand-in takes
LiteLLM's place. A second run finds the release that the first one built.
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

#: Families of checks about units and about LiteLLM's own configuration: there are none here.
_ELSEWHERE = ("unit", "socket", "service", "credential", "relay", "routing")


def directory() -> Path:
    """Where the demonstration keeps its deployment. Root's own cache is closed to the service user."""
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
        """Every check that a deployment without systemd and LiteLLM can be judged by."""
        checks = [c for c in catalog.all_checks() if c.family not in _ELSEWHERE]
        return catalog.run(checks, Deployment(self.paths))

    def smokes(self) -> Iterator[Result]:
        """Every enabled strategy, each as soon as it is proven."""
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
    """Install (or find) a deployment below `root`, and run it on free ports against the stand-in."""
    files.make_directory(root)
    try:
        with files.exclusive(root / ".lock"):
            yield from _running(root, progress, done)
    except Locked as holder:
        raise Locked(f"{holder} runs the demonstration already", remedy="stop it first") from None


def _running(root: Path, progress: Progress, done: Callable[[Step], None]) -> Iterator[Demo]:
    place = paths.system(root)
    # fresh keys and ports at every run: nothing of a demonstration is worth keeping but the release
    upstream_key, proxy_key = f"stand-in-{secrets.token_hex(8)}", new_proxy_key()
    with StandIn(models=(Config().model,), key=upstream_key).running() as upstream:
        config = Config().moved(network.free_port(), upstream.base_url, drain=5)
        _write_operators_files(place, config, upstream_key, proxy_key)

        def plan() -> Installation:
            return install.plan_install(config, place)

        installation = plan()
        if not any(isinstance(step, BuildRelease) for step in installation.steps):
            progress(f"the release {installation.want.id} is here already")
        install.apply_install(installation, plan, None, None, progress, done)
        progress(
            f"starting OptiLLM on port {config.listen.port}, in front of the stand-in at {upstream.base_url}"
        )
        keys = trial.Secrets.of(proxy_key, upstream_key)
        home, log = render.home(config, place), root / "service.log"
        with trial.started(config, place.current, keys, home=home, log=log):
            yield Demo(config, place, proxy_key)
