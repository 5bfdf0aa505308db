"""The proof of a release against the live upstream, on a free port, before anything active is
touched.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from optictl.deployment import remedies
from optictl.deployment.config import Config
from optictl.deployment.paths import Paths
from optictl.errors import ProofFailed
from optictl.host import network
from optictl.operations.proxy_key import new_proxy_key
from optictl.proof import evidence, trial
from optictl.releases import store
from optictl.results import SEVERITY, Progress, Result, Status


@dataclass(frozen=True)
class Proof:
    """What releases did when every enabled strategy was asked: the new one on a free port, as
    `compared` judges it, and the active one.
    """

    new: list[Result]
    current: list[Result]


@dataclass(frozen=True)
class Canary:
    """What a canary is compared with, and where its proof is reported.

    `active_config` is the configuration of the active release, `active_release` its name. `serves`:
    it serves, and is asked the same. `report` gets the proof before it is judged.
    """

    active_config: Config
    active_release: str | None
    upstream_key: str
    proxy_key: str
    serves: bool
    report: Callable[[Proof], None]

    def prove(self, config: Config, paths: Paths, release: str, say: Progress) -> None:
        """Ask the release every enabled strategy.

        Raises:
            OptictlError: it did not start, or it did not do what it was asked.
        """
        new = ask_release(config, paths, release, self.upstream_key, say)
        current: list[Result] = []
        if self.serves:
            say(f"asking {self.active_release}, the active release, the same")
            active = self.active_config
            current = smokes(active, active.url, self.proxy_key, active.strategies, say)
        new = [
            replace(result, remedy=remedies.for_deployment(result.remedy, paths))
            for result in compared(new, current)
        ]
        self.report(Proof(new, current))
        refuse_failed(new)


def ask_release(
    config: Config, paths: Paths, release: str, upstream_key: str, say: Progress
) -> list[Result]:
    """Start a release on a free loopback port against the live upstream and ask it everything that
    it must answer.

    Raises:
        OptictlError: it does not start, does not protect its port, or does not see the base model.
    """
    directory, key = paths.releases / release, new_proxy_key()
    moved = config.moved(network.free_port(), config.upstream.base_url, drain=5)
    say(f"starting {release} on port {moved.listen.port}")
    flags = store.guard_flags(paths, release)
    with trial.started(
        moved,
        directory,
        trial.Secrets.of(key, upstream_key),
        scratch_parent=paths.scratch,
        user=paths.name,
        flags=flags,
    ) as running:
        _refuse_unprotected(running.config, key)
        return smokes(running.config, running.url, key, config.strategies, say)


def _refuse_unprotected(config: Config, key: str) -> None:
    """Raise OptictlError unless the port asks for the key, base models are refused, and
    LiteLLM's list comes through it.
    """
    locked = network.request("GET", f"{config.url}/models")
    body = {"model": config.model, "messages": [{"role": "user", "content": "hello"}]}
    bare = network.request("POST", f"{config.url}/chat/completions", key=key, body=body)
    listed = network.request("GET", f"{config.url}/models", key=key, timeout=30)
    for is_wrong, what in (
        (locked.status != 401, f"serves /v1/models without a key: {locked.status}"),
        (bare.status != 400, f"accepts a model without a strategy: {bare.status}"),
        (listed.status != 200, f"does not reach LiteLLM: {evidence.error_message(listed)}"),
        (config.model not in listed.text, f"does not see {config.model} upstream"),
    ):
        if is_wrong:
            raise ProofFailed(f"the release {what}")


def smokes(
    config: Config, url: str, key: str, strategies: Sequence[str], say: Progress
) -> list[Result]:
    """One real request for each strategy, and what it proves.

    A strategy without effect is asked once more: samples differ from request to request.
    """

    def ask(model: str) -> Result:
        timeout = config.timeouts.request + 10
        answer = evidence.run(url, key, model, evidence.PROMPT, timeout)
        return evidence.judge(model, config, answer)

    results = []
    for strategy in strategies:
        model = f"{strategy}-{config.model}"
        say(f"asking {model}")
        result = ask(model)
        if result.failed and evidence.has_run(result):
            say(f"asking {model} once more: it had no effect")
            result = ask(model)
        results.append(result)
        say(_answered(result))
    return results


def _answered(result: Result) -> str:
    """The line of a result as soon as it is known; the table comes when all are."""
    if result.failed or not result.data:
        return f"{result.id}: {result.found}"
    return f"{result.id} answered in {result.data['latency_ms'] / 1000:.1f} s"


def compared(new: Sequence[Result], before: Sequence[Result]) -> list[Result]:
    """The results of a new release, judged by what the active one did when asked the same. Pure.

    A strategy without effect is a failure only if it had its effect on the active release.
    Otherwise the upstream is the cause, and it is a warning.
    """
    known = {result.id: result for result in before}
    return [_compared(result, known.get(result.id)) for result in new]


def _compared(result: Result, before: Result | None) -> Result:
    has_no_effect = result.failed and evidence.has_run(result)
    if result.status == "pass" or (before is None and not has_no_effect):
        return result
    if before is None:
        words = "the active release was not asked"
    elif SEVERITY.index(before.status) < SEVERITY.index(result.status):
        words = "the active release did better"
    else:
        words = "the active release did no better"
    is_lost = before is not None and not before.failed
    status: Status = "warn" if has_no_effect and not is_lost else result.status
    return replace(result, status=status, found=f"{result.found}; {words}")


def refuse_failed(results: Sequence[Result]) -> None:
    """Raise OptictlError if a result of `compared` failed: a strategy did not run, or lost its
    effect.
    """
    failed = [result for result in results if result.failed]
    if failed:
        lost = dict.fromkeys(result.remedy for result in failed if evidence.has_run(result))
        what = "; ".join(f"{result.id}: {result.found}" for result in failed)
        raise ProofFailed(what, remedy="; ".join(filter(None, lost)))
