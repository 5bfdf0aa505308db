"""The demonstration: a whole deployment without root, systemd or LiteLLM.

The deployment is in a private directory below the user's cache, and the stand-in or a small real
model replaces LiteLLM. A second run reuses the release that the first one built.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from optictl.checks import catalog
from optictl.demo import model
from optictl.deployment import paths, render
from optictl.deployment.config import Config
from optictl.deployment.paths import Paths
from optictl.errors import Locked
from optictl.facts.deployment import Deployment
from optictl.host import files, network
from optictl.host.network import Response
from optictl.operations import install, preflight
from optictl.operations.installation import Installation
from optictl.operations.proxy_key import new_proxy_key
from optictl.operations.steps import BuildRelease, Step
from optictl.proof import evidence, trial
from optictl.proof.standin import StandIn
from optictl.releases import interpreters
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


#: The most tokens of one text of the real model: some of its texts would not end.
ANSWER_TOKENS = 800
#: The guard's errors where the texts of the model are no answer.
_NO_ANSWER = ("answer_truncated", "answer_filtered")


@dataclass(frozen=True)
class Demo:
    """A running demonstration. `is_real`: a model answers, and not the stand-in."""

    config: Config
    paths: Paths
    proxy_key: str
    is_real: bool = False

    def checks(self) -> list[Result]:
        """The results of all checks that apply without systemd and LiteLLM."""
        checks = [c for c in catalog.all_checks() if c.family not in _ELSEWHERE]
        return catalog.run(checks, Deployment(self.paths))

    @property
    def models(self) -> list[str]:
        """The names of the enabled strategies, as a client asks for them."""
        return [f"{strategy}-{self.config.model}" for strategy in self.config.strategies]

    def plain(self) -> Response:
        """The answer without a strategy, straight from the upstream."""
        key = Deployment(self.paths).upstream_key
        return self._ask(self.config.upstream.base_url, key, self.config.model)

    def smoke(self, name: str, plain: Response) -> Result:
        """Ask for a strategy by its model name, and judge the answer.

        What the real model could not do is a warning: it is small, and the deployment is not to
        blame. Either the strategy ran without effect, or the model's texts were no answer.
        """
        answer = self._ask(self.config.url, self.proxy_key, name)
        result = evidence.judge(name, self.config, answer, evidence.usage(plain))
        if not self.is_real or not result.failed:
            return result
        is_too_small = evidence.has_run(result) or _code(answer) in _NO_ANSWER
        return replace(result, status="warn") if is_too_small else result

    def _ask(self, url: str, key: str, name: str) -> Response:
        body: dict[str, Any] = {
            "model": name,
            "messages": [{"role": "user", "content": evidence.PROMPT}],
            **({"max_tokens": ANSWER_TOKENS} if self.is_real else {}),
        }
        # longer than the service, which reports why it gave up
        seconds = self.config.timeouts.request + 10 if self.is_real else 60
        return network.request(
            "POST", f"{url}/chat/completions", key=key, body=body, timeout=seconds
        )


def _code(answer: Response) -> str:
    """The code of an error, "" without one."""
    error = answer.data.get("error") if isinstance(answer.data, dict) else None
    return str(error.get("code", "")) if isinstance(error, dict) else ""


def _write_operators_files(place: Paths, config: Config, upstream_key: str, proxy_key: str) -> None:
    files.make_directory(place.etc)
    files.write(place.config, render.configuration(config), 0o644)
    files.write(place.env, f"OPENAI_API_KEY={upstream_key}\n", 0o600)
    files.write(place.proxy_key, proxy_key + "\n", 0o600)


@contextmanager
def running(
    root: Path, progress: Progress, done: Callable[[Step], None], *, is_real: bool = False
) -> Iterator[Demo]:
    """Install or reuse a deployment below `root`, and run it on free ports.

    Its upstream is the stand-in, or with `is_real` the model of `model`.
    """
    files.make_directory(root)
    try:
        with files.exclusive(root / ".lock"):
            yield from _running(root, progress, done, is_real)
    except Locked as holder:
        raise Locked(f"{holder} already runs the demonstration", remedy="stop it first") from None


def _running(
    root: Path, progress: Progress, done: Callable[[Step], None], is_real: bool
) -> Iterator[Demo]:
    place = paths.system(root)
    # new keys and ports in every run: only the release is reused
    upstream_key, proxy_key = f"stand-in-{secrets.token_hex(8)}", new_proxy_key()
    upstream = _model(root, place, progress) if is_real else _standin(upstream_key)
    with upstream as base_url:
        config = Config().moved(network.free_port(), base_url, drain=5)
        _write_operators_files(place, config, upstream_key, proxy_key)

        def plan() -> Installation:
            return install.plan_install(config, place)

        installation = plan()
        if not any(isinstance(step, BuildRelease) for step in installation.steps):
            progress(f"using the existing release {installation.want.id}")
        install.apply_install(installation, plan, None, None, progress, done)
        behind = model.TITLE if is_real else "the stand-in"
        port = config.listen.port
        progress(f"starting OptiLLM on port {port}, in front of {behind} at {base_url}")
        keys = trial.Secrets.of(proxy_key, upstream_key)
        home, log = render.home(config, place), root / "service.log"
        with trial.started(config, place.current, keys, home=home, log=log):
            yield Demo(config, place, proxy_key, is_real)


@contextmanager
def _standin(key: str) -> Iterator[str]:
    """The base URL of the stand-in."""
    with StandIn(models=(Config().model,), key=key).running() as upstream:
        yield upstream.base_url


@contextmanager
def _model(root: Path, place: Paths, progress: Progress) -> Iterator[str]:
    """The base URL of the real model, which is installed below the root of the demonstration.

    It runs on the interpreter of the release: any user can execute that one.
    """
    python = interpreters.interpreter(
        place, preflight.others_must_reach(place), None, lambda _passed_over: None
    )
    model.install(root / "model", python.path, progress)
    progress(f"starting llama.cpp with {model.TITLE}")
    with model.serving(root / "model", Config().model, root / "model.log") as base_url:
        yield base_url
