"""The conformance run: the guard is started on a release, and its promises are tried.

The upstream is the stand-in: no token is spent. It decides about versions of OptiLLM that are not
verified, which may change a strategy in ways that no fingerprint tells.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from optictl.deployment import model_names
from optictl.deployment.config import Config
from optictl.errors import ProofFailed
from optictl.guard import fingerprints
from optictl.host import network, uv
from optictl.proof import cases, evidence, trial
from optictl.proof.attempts import PROXY_KEY, TIMEOUT, UPSTREAM_KEY, Attempts
from optictl.proof.standin import StandIn
from optictl.results import Progress, Result, detail_of

#: More than any strategy needs with the stand-in's answers.
_MAX_CALLS = 1000


def run(
    config: Config, release: Path, progress: Progress, scratch_parent: Path | None = None
) -> Result:
    """Start a release on a free port against the stand-in, and try every promise.

    Returns what the first strategy did. `scratch_parent`: the directory of temporary files.

    Raises:
        OptictlError: the release did not start, or it broke a promise, which the error names.
    """
    keys = trial.Secrets.of(PROXY_KEY, UPSTREAM_KEY)
    with StandIn(models=config.base_models, key=UPSTREAM_KEY).running() as upstream:
        moved = _moved(config, upstream)
        with trial.started(moved, release, keys, scratch_parent=scratch_parent) as running:
            to = Attempts(running.config, upstream)
            return try_all(to, _words(release), progress, running.log)


def _words(release: Path) -> frozenset[str]:
    packages = uv.site_packages(release / ".venv")
    return fingerprints.words(packages) if packages else frozenset()


def _moved(config: Config, upstream: StandIn) -> Config:
    moved = config.moved(network.free_port(), upstream.base_url, request=TIMEOUT, drain=1)
    limits = moved.limits.model_copy(update={"max_upstream_calls": _MAX_CALLS})
    # the pauses between retries would take minutes
    no_retries = moved.upstream.model_copy(update={"max_retries": 0})
    return moved.model_copy(update={"limits": limits, "upstream": no_retries, "workers": 1})


def try_all(to: Attempts, words: Collection[str], progress: Progress, log: Path) -> Result:
    """Try every promise of a running release.

    `words`: the strategies of its OptiLLM, none where they cannot be read. `log`: of the release.

    Raises:
        OptictlError: it broke one.
    """
    enabled = to.config.strategies
    model = to.named(enabled[0])
    first = evidence.judge(model, to.config, to.ask(model).answer)
    # how good the answers of a model are, the stand-in does not tell
    if not evidence.has_run(first):
        raise _broken(f"{enabled[0]} runs", first.found, log)
    promises = list(cases.cases(_tried(to, words, log)))
    for number, case in enumerate(promises, 1):
        detail_of(progress)(f"promise {number} of {len(promises)}: {case.name}")
        if problem := case.attempt(to):
            raise _broken(case.name, problem, log)
    return first


def _tried(to: Attempts, words: Collection[str], log: Path) -> list[str]:
    """The enabled strategies of OptiLLM that can run.

    A plugin of OptiLLM may need packages that the release does not have. A strategy that is not
    OptiLLM's is one of the operator's plugins, which promise nothing.

    Raises:
        ProofFailed: OptiLLM has no such strategy.
    """
    enabled, known = to.config.strategies, frozenset(words or to.config.strategies)
    unknown = [name for name in enabled if name not in known]
    if unknown and not to.config.plugins:
        raise _broken("every enabled strategy exists", f"OptiLLM has no {unknown[0]}", log)
    present = {*to.loaded(), *model_names.BUILT_IN}
    return [name for name in enabled if name in known & present]


def _broken(promise: str, problem: str, log: Path) -> ProofFailed:
    return ProofFailed(
        f"the release breaks a promise ({promise}): {problem}",
        detail=log.read_text(errors="replace")[-2000:],
    )
