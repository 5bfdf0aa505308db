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
    """Build and prove a release next to those that exist. A half-built one of the same name is replaced.

    Raises:
        OptictlError: it could not be built or did not prove itself; the active release was not changed.
    """
    directory = want.directory(paths)
    try:
        _make(directory, want, python, wheelhouse, progress)
    except OptictlError as error:
        raise error.reworded(
            f"the release could not be built: {error.what}",
            f"{error.remedy or 'fix what it names'}; then run {paths.command('install')} again",
        ) from None
    progress("proving the release: starting it and running one strategy against the stand-in")
    proof = prove(directory, config, paths.scratch)
    record = _record(directory, want, python, proof)
    progress("reading every file once, and recording its size and time")
    stamps = json.dumps(integrity.stamps(directory / ".venv"))
    files.write(directory / integrity.STAMPS, stamps, 0o644)
    files.write(directory / "release.json", json.dumps(record, indent=1) + "\n", 0o644)


def _make(
    directory: Path, want: Wanted, python: Interpreter, wheelhouse: Path | None, progress: Progress
) -> None:
    """Make the directory of a release: its virtual environment, the guard, the plugins, the bytecode."""
    files.remove(directory)
    files.make_directory(directory)
    venv = directory / ".venv"
    progress(f"creating a virtual environment on {python}")
    uv.make_venv(venv, python.path)
    progress(f"installing OptiLLM {want.version} and its closure, every hash checked")
    uv.install(venv, want.lock, wheelhouse)
    progress("copying the guard")
    files.copy_tree(locks.GUARD, directory / "guard")
    plugin_directory = directory / "work" / "optillm" / "plugins"
    files.make_directory(plugin_directory if want.plugins else directory / "work")
    for plugin in want.plugins:
        files.copy(plugin, plugin_directory / plugin.name)
    uv.compile_tree(venv / "bin/python", directory / "guard")
    # a strict umask, now or when uv filled its cache, would keep the service's user out
    files.open_to_readers(directory)


def _record(
    directory: Path, want: Wanted, python: Interpreter, proof: dict[str, Any]
) -> dict[str, Any]:
    """What release.json holds."""
    return {
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
        "distributions": integrity.distributions(directory / ".venv"),
        "files": integrity.own_files(directory),
    }


def prove(directory: Path, config: Config, scratch_parent: Path | None = None) -> dict[str, Any]:
    """Start a release on a free port against the stand-in and run one strategy through it.

    Returns what the strategy did. No token is spent and LiteLLM is not asked. Its files are in a scratch directory below
    `scratch_parent`.

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
