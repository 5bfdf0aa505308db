"""Building a release, and proving that it starts and keeps the promises of the guard."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from optictl import records
from optictl.deployment.config import Config
from optictl.deployment.paths import Paths
from optictl.errors import OptictlError, ProofFailed
from optictl.guard import GUARD_VERSION, settings
from optictl.host import files, network, uv
from optictl.host.uv import Interpreter
from optictl.proof import conformance, evidence, trial
from optictl.proof.attempts import PROXY_KEY, UPSTREAM_KEY
from optictl.proof.standin import StandIn
from optictl.releases import integrity, locks, release_record
from optictl.releases.locks import ReleaseSpec
from optictl.releases.release_record import Conformance, Proof, Python, ReleaseRecord
from optictl.results import Progress, Result, detail_of


def build(
    want: ReleaseSpec,
    paths: Paths,
    config: Config,
    python: Interpreter,
    wheelhouse: Path | None,
    progress: Progress,
) -> None:
    """Build and prove a release next to the others. Replaces a half-built one of the same name.

    Raises:
        OptictlError: the build or the proof failed, and nothing of it is left; the active release
            was not changed.
    """
    directory = want.directory(paths)
    with _whole_or_gone(directory):
        try:
            _make(directory, want, python, wheelhouse, progress)
        except OptictlError as error:
            raise error.reworded(
                f"the release could not be built: {error.what}",
                f"{error.remedy or 'fix the problem'}; then run the command again",
            ) from None
        progress("testing the release: starting it and trying the guard's promises on the stand-in")
        proof = conform(directory, config, progress, paths.scratch)
        record = _record(directory, want, python, proof)
        progress("reading every file once, and recording its size and time")
        stamps = json.dumps(integrity.verified_stamps(directory / ".venv"))
        files.write(directory / integrity.STAMPS, stamps, 0o644)
        release_record.write(directory, record)


@contextmanager
def _whole_or_gone(directory: Path) -> Iterator[None]:
    """Remove the directory if the block fails."""
    try:
        yield
    except BaseException:
        with suppress(OSError):
            files.remove(directory)
        raise


def _make(
    directory: Path,
    want: ReleaseSpec,
    python: Interpreter,
    wheelhouse: Path | None,
    progress: Progress,
) -> None:
    """Fill the directory of a release: virtual environment, guard, plugins, bytecode."""
    files.remove(directory)
    files.make_directory(directory)
    venv = directory / ".venv"
    progress(f"creating a virtual environment with {python}")
    uv.make_venv(venv, python.path)
    progress(f"installing OptiLLM {want.version} and its dependencies, verifying every hash")
    uv.install(venv, want.lock, wheelhouse, detail_of(progress))
    progress("copying the guard")
    files.copy_tree(locks.GUARD, directory / "guard")
    plugin_directory = directory / "work" / "optillm" / "plugins"
    files.make_directory(plugin_directory if want.plugins else directory / "work")
    for plugin in want.plugins:
        files.copy(plugin, plugin_directory / plugin.name)
    uv.compile_tree(venv / "bin/python", directory / "guard")
    # with a strict umask, now or when uv filled its cache, the service's user could not read it
    files.open_to_readers(directory)


def _record(directory: Path, want: ReleaseSpec, python: Interpreter, proof: Proof) -> ReleaseRecord:
    return ReleaseRecord(
        id=want.id,
        optillm=want.version,
        profile=want.profile,
        guard=GUARD_VERSION,
        flags=tuple(settings.flags()),
        lock_sha256=files.sha256(want.lock),
        python=Python(str(python.path), ".".join(map(str, python.version))),
        built=records.utc_now(),
        proof=proof,
        conformance=Conformance(passed=True, at=records.utc_now()),
        distributions=integrity.distributions(directory / ".venv"),
        files=integrity.own_files(directory),
    )


def conform(
    directory: Path, config: Config, progress: Progress, scratch_parent: Path | None = None
) -> Proof:
    """Try the promises of the guard on a release, against the stand-in. No token is spent.

    Returns what its first strategy did. `scratch_parent`: the directory of temporary files.

    Raises:
        OptictlError: the release did not start, or broke a promise.
    """
    return _proof(conformance.run(config, directory, progress, scratch_parent))


def conform_again(directory: Path, config: Config, progress: Progress, scratch: Path) -> None:
    """Try the promises of the guard on a stored release, and record the outcome.

    Raises:
        OptictlError: the release did not start, or broke a promise.
    """
    try:
        conform(directory, config, progress, scratch)
    except OptictlError:
        _record_conformance(directory, passed=False)
        raise
    _record_conformance(directory, passed=True)


def _record_conformance(directory: Path, *, passed: bool) -> None:
    if record := release_record.read(directory):
        outcome = Conformance(passed, records.utc_now())
        release_record.write(directory, replace(record, conformance=outcome))


def prove(directory: Path, config: Config, scratch_parent: Path | None = None) -> Proof:
    """Start a release on a free port against the stand-in, and run one strategy.

    Returns what the strategy did. No token is spent and LiteLLM is not called. `scratch_parent`:
    the directory of temporary files.

    Raises:
        OptictlError: the release did not start, accepted a request without the key, or did not run
            the strategy.
    """
    with StandIn(models=config.base_models, key=UPSTREAM_KEY).running() as upstream:
        moved = config.moved(network.free_port(), upstream.base_url, request=60, drain=1)
        keys = trial.Secrets.of(PROXY_KEY, UPSTREAM_KEY)
        with trial.started(moved, directory, keys, scratch_parent=scratch_parent) as running:
            locked = network.request("GET", f"{running.url}/models")
            if locked.status != 401:
                raise ProofFailed(f"the release answers /v1/models without a key ({locked.status})")
            model = f"{moved.strategies[0]}-{moved.model}"
            answer = evidence.run(running.url, PROXY_KEY, model, evidence.PROMPT, 60)
            result = evidence.judge(model, moved, answer)
            if not evidence.has_run(result):
                raise ProofFailed(
                    f"the test of the release failed: {result.found}",
                    detail=running.log.read_text()[-2000:],
                )
    return _proof(result)


def _proof(result: Result) -> Proof:
    data = dict(result.data or {})
    return Proof(data["strategy"], data["upstream_calls"], data["latency_ms"])
