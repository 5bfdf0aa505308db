"""A whole deployment for the tests: installed on free ports, with a scripted upstream."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from optictl.checks import catalog
from optictl.deployment import paths, render
from optictl.deployment.config import Config
from optictl.deployment.config_sections import LiteLLM
from optictl.deployment.paths import Paths
from optictl.facts.deployment import Deployment
from optictl.host import files, uv
from optictl.litellm import versions
from optictl.operations import install as installing
from optictl.operations.installation import Installation
from optictl.proof import trial
from optictl.proof.standin import Reply, Seen, StandIn
from optictl.results import Result
from testing.support import PROXY_KEY, UPSTREAM_KEY, free_port


@dataclass
class InstalledDeployment:
    """An installed deployment below `root`, whose upstream would listen on `upstream_port`."""

    root: Path
    config: Config
    upstream_port: int

    @property
    def paths(self) -> Paths:
        return paths.system(self.root)

    @property
    def release(self) -> Path:
        return self.paths.current.resolve()

    @property
    def litellm(self) -> Path:
        """The directory of LiteLLM's own files, which the configuration names."""
        return self.root / "etc/litellm"

    @property
    def litellm_config(self) -> str:
        """What `optictl render litellm` prints, and a real model behind every base model."""
        bases = (
            f"  - {{model_name: {base}, "
            "litellm_params: {model: openai/real, api_base: 'http://192.0.2.9/v1'}}\n"
            for base in self.config.base_models
        )
        return render.litellm(self.config, self.paths) + "".join(bases)

    def check(self, *only: str) -> dict[str, Result]:
        """Run checks on it, as `optictl check` does."""
        return {r.id: r for r in catalog.run(catalog.select(only), Deployment(self.paths))}

    def reset(self) -> None:
        """The operator's files as they were at first, with their modes."""
        place = self.paths
        for path, text, mode in (
            (place.config, render.configuration(self.config), 0o644),
            (place.env, f"OPENAI_API_KEY={UPSTREAM_KEY}\n", 0o600),
            (place.proxy_key, PROXY_KEY + "\n", 0o600),
            (place.proxy_config, render.proxy_config(self.config), 0o644),
            (self.litellm / "litellm.yaml", self.litellm_config, 0o644),
            (self.litellm / "litellm.env", f"{render.LITELLM_KEY_VARIABLE}={PROXY_KEY}\n", 0o600),
        ):
            if path == place.proxy_config and not path.parent.is_symlink():
                continue  # it is below the HOME that an installation makes
            files.make_directory(path.parent)
            files.remove(path)
            files.write(path, text, mode)

    def standin(self, **options: object) -> StandIn:
        """The scripted upstream in LiteLLM's place, not yet running."""
        options.setdefault("respond", _version_of_litellm)
        return StandIn(key=UPSTREAM_KEY, port=self.upstream_port, **options)

    @contextmanager
    def serving(self) -> Iterator[subprocess.Popen[bytes]]:
        """The deployment's service, ready."""
        with trial.started(
            self.config,
            self.paths.current,
            trial.Secrets.of(PROXY_KEY, UPSTREAM_KEY),
            home=render.home(self.config, self.paths),
            log=self.root / "service.log",
        ) as running:
            yield running.process


def _version_of_litellm(seen: Seen) -> Reply | None:
    """Where LiteLLM reports its version."""
    if seen.path == "/public/model_hub/info":
        return Reply(body={"litellm_version": versions.NEWEST})
    return None


def make(root: Path, venv: Path) -> InstalledDeployment:
    """Install a deployment below `root`, by the functions that `optictl install` calls.

    The release's venv is a copy of `venv`, which holds the same locked closure: to compile one
    takes 16 s of CPU (tests/integration/install builds real ones). It is judged and proven as if it
    had been built.
    """
    upstream_port = free_port()
    config = Config(
        litellm=LiteLLM(
            config=str(root / "etc/litellm/litellm.yaml"), env=str(root / "etc/litellm/litellm.env")
        )
    ).moved(free_port(), f"http://127.0.0.1:{upstream_port}/v1", drain=5)
    deployment = InstalledDeployment(root, config, upstream_port)
    deployment.reset()

    def plan() -> Installation:
        return installing.plan_install(config, deployment.paths)

    def install(directory: Path, *_: object) -> None:
        subprocess.run(["cp", "-a", f"{venv}/.", str(directory)], check=True)

    with mock.patch.object(uv, "install", install):
        installing.apply_install(
            plan(), plan, Path("/usr/bin/python3"), None, lambda _text: None, lambda _change: None
        )
    return deployment
