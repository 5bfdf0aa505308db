"""upgrade and rollback: build beside, prove against the live upstream, switch, prove again, or go back."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from optictl.checks import catalog
from optictl.deployment import config as configuration
from optictl.deployment import render
from optictl.deployment.artefacts import Artefact
from optictl.deployment.config import Config
from optictl.deployment.paths import Paths
from optictl.errors import MissingFact, NotInstalled, OptictlError, RolledBack
from optictl.facts.deployment import Deployment
from optictl.guard import internals
from optictl.host import files, network, uv
from optictl.operations import initialize, install, previous_service, transaction
from optictl.operations.install import Done
from optictl.operations.installation import PLAIN, Circumstances, Installation
from optictl.operations.plan import Change
from optictl.proof import evidence
from optictl.proof import trial as release_process
from optictl.releases import integrity, store
from optictl.releases import locks as releases_locks
from optictl.releases.locks import Wanted
from optictl.results import Progress, Result

#: What is done before anything in force is touched.
_PROOF = ("build", "canary")
#: The tiers of health that cost nothing. What they say before a change must not be worse after it.
_TIERS = ("health.alive", "health.locked", "health.connected", "process.guarded")


@dataclass(frozen=True)
class Proof:
    """What a release did when every enabled strategy was asked: the new one on a free port, the one in force beside it."""

    new: list[Result]
    current: list[Result]


# -- what is planned


def plan_upgrade(
    config: Config, config_path: Path, paths: Paths, version: str, given: Circumstances = PLAIN
) -> Installation:
    """What an upgrade to this version of OptiLLM would do now. Reads, never writes.

    Raises:
        OptictlError: there is no lock for it, or the configuration cannot be edited.
    """
    wanted = config.model_copy(
        update={"optillm": config.optillm.model_copy(update={"version": version})}
    )
    return _with_proof(install.plan_install(wanted, paths, given=given), config_path)


def plan_rollback(config: Config, config_path: Path, paths: Paths) -> Installation:
    """What going back to the release before would do now. Reads, never writes.

    Raises:
        OptictlError: there is none, or it is broken.
    """
    name = store.previous(paths)
    if name is None:
        raise NotInstalled(
            "there is no release to go back to",
            remedy=f"{paths.command('releases')} lists what there is",
        )
    if wrong := integrity.integrity_problems(paths.releases / name):
        raise OptictlError(
            f"the release before, {name}, is broken: {wrong[0]}",
            remedy=f"{paths.command('upgrade VERSION')} builds one anew",
        )
    record = integrity.record(paths.releases / name) or {}
    optillm = config.optillm.model_copy(
        update={"version": record["optillm"], "profile": record["profile"]}
    )
    want = Wanted(record["id"], record["optillm"], record["profile"], Path(), (), name)
    return _with_proof(
        install.plan_install(config.model_copy(update={"optillm": optillm}), paths, release=want),
        config_path,
    )


def _with_proof(installation: Installation, config_path: Path) -> Installation:
    """With the canary behind the build, and the configuration's new version behind everything that was proven."""
    changes = list(installation.changes)
    if any(change.action == "switch" for change in changes):
        at = next((i + 1 for i, change in enumerate(changes) if change.action == "build"), 0)
        reason = "every enabled strategy is asked on a free port, through the live upstream; that costs tokens"
        changes.insert(at, Change("canary", installation.want.name, reason))
    # the operator's own words for the version are the last to change: until then `install` goes back
    text = files.read(config_path)
    version = installation.config.optillm.version
    edited = (
        render.configuration(installation.config)
        if text is None
        else configuration.with_version(text, str(config_path), version)
    )
    if edited != text:
        diff = "".join(
            difflib.unified_diff(
                (text or "").splitlines(keepends=True),
                edited.splitlines(keepends=True),
                str(config_path),
                str(config_path),
            )
        )
        artefact = Artefact(config_path, edited, files.file_facts(config_path).mode or 0o644)
        rest = [i for i, change in enumerate(changes) if change.action == "remove"]
        changes.insert(
            rest[0] if rest else len(changes),
            Change("configure", str(config_path), f"OptiLLM {version}", diff, artefact),
        )
    return replace(installation, changes=changes)


def up_to_the_proof(installation: Installation) -> Installation:
    """The same, ended before anything in force is touched."""
    return replace(installation, changes=[c for c in installation.changes if c.action in _PROOF])


# -- a lock for a version that none is shipped for


@dataclass(frozen=True)
class Resolution:
    """A new lock, what it changes in the closure, and what changed in OptiLLM that the guard relies on.

    `closure` has a line for each package: "openai 3.54.0 -> 3.60.1"; `internals` name -> diff; `unknown`
    are the parts that no verified version has, with which the guard would refuse to start.
    """

    path: Path
    text: str
    closure: list[str]
    internals: dict[str, str]
    unknown: list[str]

    def as_dict(self) -> dict[str, Any]:
        """The JSON shape; the lock itself is left out."""
        data = {
            "closure": self.closure,
            "internals": sorted(self.internals),
            "unknown": self.unknown,
        }
        return {"id": self.path.name, "status": "fail" if self.unknown else "pass", "data": data}


def resolve(config: Config, paths: Paths, version: str, progress: Progress) -> Resolution:
    """Make a lock for a version of OptiLLM from the same pins. Nothing is written but to a scratch directory.

    Raises:
        OptictlError: it cannot be resolved.
    """
    if config.optillm.profile != "proxy":
        raise OptictlError(
            "only the profile proxy can be resolved", remedy="set optillm.profile to proxy"
        )
    locks = releases_locks.shipped_locks()
    old = releases_locks.lock_file(config.optillm.version, "proxy", paths).read_text()
    progress(f"resolving OptiLLM {version} and its closure")
    try:
        text = uv.resolve(
            f"optillm=={version}\n{(locks / 'proxy.in').read_text()}",
            (locks / "proxy.exclude").read_text(),
            old,
        )
    except OptictlError as error:
        remedy = error.remedy or "check the version's number: uv's words name what does not fit"
        raise error.reworded(
            f"OptiLLM {version} cannot be resolved: {error.what}", remedy
        ) from None
    progress(f"reading what the guard relies on in OptiLLM {version}")
    before, after = (
        uv.sources(f"optillm=={config.optillm.version}"),
        uv.sources(f"optillm=={version}"),
    )
    with before as old_package, after as new_package:
        changed = {
            name: "".join(
                difflib.unified_diff(
                    a.splitlines(keepends=True), b.splitlines(keepends=True), "old", "new", n=1
                )
            )
            for (name, a), b in zip(
                internals.sources(old_package).items(),
                internals.sources(new_package).values(),
                strict=True,
            )
            if internals.fingerprint(a) != internals.fingerprint(b)
        }
        unknown = internals.unknown(internals.fingerprints(new_package))
    return Resolution(
        paths.locks / releases_locks.lock_name(version, "proxy"),
        text,
        closure_difference(old, text),
        changed,
        unknown,
    )


def closure_difference(old: str, new: str) -> list[str]:
    """The packages in which two locks differ, a line each. Pure."""
    before, after = _pins(old), _pins(new)
    lines = []
    for name in sorted({*before, *after}):
        a, b = before.get(name), after.get(name)
        if a != b:
            lines.append(
                f"{name} {a} -> {b}"
                if a and b
                else f"{name} {b} is new"
                if b
                else f"{name} {a} is gone"
            )
    return lines


def _pins(lock: str) -> dict[str, str]:
    return dict(re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", lock, re.M))


def own_lock(config: Config, paths: Paths, version: str, lock: Path) -> tuple[Path, str]:
    """Where an operator's lock for this version belongs, and its text.

    Raises:
        OptictlError: it is no hash lock of that version.
    """
    try:
        text = files.read(lock) or ""
    except OSError as error:
        raise OptictlError(
            f"cannot read {lock}: {error.strerror}", remedy="name a file that can be read"
        ) from None
    if _pins(text).get("optillm") != version or "--hash=" not in text:
        raise OptictlError(
            f"{lock} is no hash lock of OptiLLM {version}",
            remedy=f"make one: {paths.command(f'upgrade {version} --resolve')}",
        )
    return paths.locks / releases_locks.lock_name(version, config.optillm.profile), text


def keep_lock(path: Path, text: str) -> None:
    """Put a lock beside the configuration, where `install` and `upgrade` find it."""
    files.make_directory(path.parent)
    files.write(path, text, 0o644)


# -- proof


def canary(
    config: Config, paths: Paths, release: str, upstream_key: str, progress: Progress
) -> list[Result]:
    """Start a release on a free loopback port against the live upstream and ask it everything that it must answer.

    Raises:
        OptictlError: it does not start, lets somebody in, or does not see the base model.
    """
    trial = config.moved(network.free_port(), config.upstream.base_url, drain=5)
    directory, key = paths.releases / release, initialize.new_proxy_key()
    flags = (integrity.record(directory) or {}).get("flags", ())
    with files.scratch(parent=paths.scratch) as scratch:
        home = scratch / "home"
        files.make_directory(home / ".optillm")
        files.write(home / ".optillm" / "proxy_config.yaml", render.proxy_config(trial), 0o644)
        log = scratch / "log"
        files.write(log, "", 0o644)
        progress(f"starting {release} on port {trial.listen.port}")
        with (
            log.open("wb") as output,
            release_process.running(
                trial,
                directory,
                home,
                proxy_key=key,
                upstream_key=upstream_key,
                output=output,
                user=paths.name,
                scratch=paths.scratch,
                flags=flags,
            ) as process,
        ):
            release_process.wait_ready(process, trial, log)
            _refuses(trial, key)
            return _smokes(trial, trial.url, key, config.strategies, progress)


def _refuses(trial: Config, key: str) -> None:
    """Raise OptictlError unless the door is locked, keeps base models out, and the upstream's list comes through it."""
    locked = network.request("GET", f"{trial.url}/models")
    body = {"model": trial.model, "messages": [{"role": "user", "content": "hello"}]}
    bare = network.request("POST", f"{trial.url}/chat/completions", key=key, body=body)
    listed = network.request("GET", f"{trial.url}/models", key=key, timeout=30)
    for wrong, what in (
        (locked.status != 401, f"serves /v1/models without a key: {locked.status}"),
        (bare.status != 400, f"lets a model without a strategy in: {bare.status}"),
        (listed.status != 200, f"does not reach LiteLLM: {evidence.error_message(listed)}"),
        (trial.model not in listed.text, f"does not see {trial.model} upstream"),
    ):
        if wrong:
            raise OptictlError(f"the release {what}")


def _smokes(
    config: Config, url: str, key: str, strategies: Sequence[str], progress: Progress
) -> list[Result]:
    results = []
    for strategy in strategies:
        model = f"{strategy}-{config.model}"
        progress(f"asking {model}")
        results.append(
            evidence.judge(
                model,
                config,
                evidence.run(url, key, model, evidence.PROMPT, config.timeouts.request + 10),
            )
        )
    return results


def health(paths: Paths) -> dict[str, Result]:
    """The tiers of health of what serves now; none where nothing does."""
    deployment = Deployment(paths)
    try:
        deployment.live  # noqa: B018
    except MissingFact:
        return {}
    return {r.id: r for r in catalog.run(catalog.select(_TIERS), deployment) if r.id in _TIERS}


def worse(before: dict[str, Result], after: dict[str, Result]) -> list[Result]:
    """The tiers that were good and are not any more. Pure."""
    return [
        after[id]
        for id, r in before.items()
        if r.status == "pass" and id in after and after[id].status != "pass"
    ]


def refuse_worse(before: dict[str, Result], paths: Paths) -> None:
    """Raise OptictlError if what serves now is worse than it was, or no longer serves."""
    after = health(paths)
    if before and not after:
        raise OptictlError("nothing serves any more")
    if wrong := worse(before, after):
        raise OptictlError("; ".join(f"{r.id}: {r.found}" for r in wrong))


def _refuse_bad(results: Sequence[Result]) -> None:
    if wrong := [f"{r.id}: {r.found}" for r in results if r.status != "pass"]:
        raise OptictlError("; ".join(wrong))


# -- doing it


def apply(
    shown: Installation,
    plan_again: Callable[[], Installation],
    config: Config,
    python: Path | None,
    wheelhouse: Path | None,
    progress: Progress,
    done: Done,
    *,
    force: bool = False,
    report_proof: Callable[[Proof], None],
) -> None:
    """Build, prove, switch, prove again; a plan that ends at the proof ends there. `config` is the one in force;
    `report_proof` is told what the canary did.

    Raises:
        RolledBack: something was not as it must be; what was in force is in force.
        OptictlError: nothing was begun: the machine is no longer what it was when the plan was made, or a secret is missing,
            or a file was edited and `force` not given.
    """
    paths = shown.paths
    deployment = Deployment(paths)
    try:
        upstream_key, proxy_key = deployment.upstream_key, deployment.proxy_key
    except MissingFact as missing:
        raise MissingFact(
            str(missing), remedy=paths.command("check --only env --only key")
        ) from None
    with install.decided(shown, plan_again, force) as now:
        current = store.active_release(paths)
        try:
            if any(change.action == "build" for change in now.changes):
                install.build_release(now, python, wheelhouse, progress)
                done(next(change for change in now.changes if change.action == "build"))
            before = health(paths)
            if canaries := [change for change in now.changes if change.action == "canary"]:
                new = canary(now.config, paths, now.want.name, upstream_key, progress)
                beside = []
                if before:
                    progress(f"asking {current}, which is in force, the same")
                    beside = _smokes(config, config.url, proxy_key, config.strategies, progress)
                report_proof(Proof(new, beside))
                _refuse_bad(new)
                done(canaries[0])
            if all(change.action in _PROOF for change in shown.changes):
                return
        except OptictlError as failure:
            raise RolledBack(
                f"{now.want.name} did not prove itself: {failure.what}; {current or 'nothing'} is in force as before",
                remedy=failure.remedy or paths.command("logs --errors"),
                detail=failure.detail,
            ) from None
        installation = install.with_texts(now)
        rest = [change for change in installation.changes if change.action not in _PROOF]
        with transaction.rollback_on_failure(installation, progress):
            connected = previous_service.was_connected(installation.hand_made)
            install.apply(replace(installation, changes=rest), progress, done)
            install.verify_serving(installation, connected)
            refuse_worse(before, paths)
            if before:
                progress(f"proving {now.want.name} once more, on port {now.config.listen.port}")
                model = now.config.strategies[:1]
                _refuse_bad(_smokes(now.config, now.config.url, proxy_key, model, progress))
        install.clean_up(installation, progress, done)
