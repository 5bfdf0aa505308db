"""Building a release and proving that it starts."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from optictl.deployment.config import Config
from optictl.deployment.paths import Paths
from optictl.errors import OptictlError
from optictl.guard import GUARD_VERSION, settings
from optictl.host import files, network, uv
from optictl.host.uv import Interpreter
from optictl.proof import evidence, trial
from optictl.proof.standin import StandIn
from optictl.releases import integrity, locks
from optictl.releases.locks import Wanted
from optictl.results import Progress

#: A key for proofs, which only ever talk to the embedded stand-in.
_PROOF_KEY = "optillm-proof-of-a-release-0123"


def build(
    want: Wanted,
    paths: Paths,
    config: Config,
    python: Interpreter,
    wheelhouse: Path | None,
    progress: Progress,
) -> None:
    """Build and prove a release beside those that exist. Half-built ones of the same id are replaced.

    Raises:
        OptictlError: it could not be built or did not prove itself; nothing in force was touched.
    """
    directory = want.directory(paths)
    files.remove(directory)
    files.make_directory(directory)
    venv = directory / ".venv"
    try:
        progress(f"creating a virtual environment on {python}")
        uv.make_venv(venv, python.path)
        progress(f"installing OptiLLM {want.version} and its closure, every hash checked")
        uv.install(venv, want.lock, wheelhouse)
        progress("copying the guard in")
        files.copy_tree(locks.GUARD, directory / "guard")
        plugin_directory = directory / "work" / "optillm" / "plugins"
        files.make_directory(plugin_directory if want.plugins else directory / "work")
        for plugin in want.plugins:
            files.copy(plugin, plugin_directory / plugin.name)
        uv.compile_tree(venv / "bin/python", directory / "guard")
        # a strict umask, now or when uv filled its cache, would keep the service's user out
        files.open_to_readers(directory)
    except OptictlError as error:
        raise error.reworded(
            f"the release could not be built: {error.what}",
            f"{error.remedy or 'correct what it names'}; then run {paths.command('install')} again",
        ) from None
    progress("proving the release: starting it and running one strategy against the stand-in")
    proof = prove(directory, config, paths.scratch)
    data = {
        "schema": 1,
        "id": want.id,
        "optillm": want.version,
        "profile": want.profile,
        "guard": GUARD_VERSION,
        "flags": settings.flags(),
        "lock_sha256": files.sha256(want.lock),
        "python": {"path": str(python.path), "version": ".".join(map(str, python.version))},
        "built": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "proof": proof,
        "distributions": integrity.distributions(venv),
        "files": integrity.own_files(directory),
    }
    progress("reading all of it once, and noting how its files look on the disk")
    files.write(directory / integrity.STAMPS, json.dumps(integrity.stamps(venv)), 0o644)
    files.write(directory / "release.json", json.dumps(data, indent=1) + "\n", 0o644)


def prove(directory: Path, config: Config, scratch_parent: Path | None = None) -> dict[str, Any]:
    """Start a release on a free port against the stand-in and run one strategy through it.

    Returns what the strategy did. No token is spent and LiteLLM is not asked. `scratch_parent`: where its files lie meanwhile.

    Raises:
        OptictlError: it did not start, was not locked, or the strategy did not run.
    """
    with StandIn(models=config.base_models, key="stand-in").running() as upstream:
        moved = config.moved(network.free_port(), upstream.base_url, request=60, drain=1)
        keys = trial.Secrets.of(_PROOF_KEY, "stand-in")
        with trial.started(moved, directory, keys, scratch_parent=scratch_parent) as running:
            locked = network.request("GET", f"{running.url}/models")
            if locked.status != 401:
                raise OptictlError(f"the release serves /v1/models without a key: {locked.status}")
            model = f"{moved.strategies[0]}-{moved.model}"
            answer = evidence.run(running.url, _PROOF_KEY, model, evidence.PROMPT, 60)
            result = evidence.judge(model, moved, answer)
            if result.status != "pass":
                raise OptictlError(
                    f"the release did not prove itself: {result.found}",
                    detail=running.log.read_text()[-2000:],
                )
    data = dict(result.data or {})
    return {name: data[name] for name in ("strategy", "upstream_calls", "latency_ms")}
