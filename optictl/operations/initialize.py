"""`init`: the files that are the operator's own, with the values of a hand-made service if there
is one.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from optictl.deployment import render
from optictl.deployment.artefacts import Artefact, operators_files
from optictl.deployment.config import Config
from optictl.deployment.manifest import Manifest
from optictl.deployment.paths import Paths
from optictl.errors import ConfigError, OptictlError, denied
from optictl.facts import config_file, installed_files
from optictl.guard import invariants
from optictl.host import files, network
from optictl.operations import file_changes, preflight
from optictl.operations.proxy_key import new_proxy_key
from optictl.operations.steps import CreateFile
from optictl.proof import evidence
from optictl.takeover import proposal, reader
from optictl.takeover.handmade import HandMade
from optictl.takeover.proposal import Proposal
from optictl.takeover.taken import NotTaken, Setting


@dataclass(frozen=True)
class Initialized:
    """What `init` did, or with `--dry-run` would do: the files made and kept, and what it found of
    a hand-made service.

    `differences`: values that the unit and the kept optictl.yaml have differently. `not_taken`:
    everything of the service that the deployment does not get, because of a kept file too.
    `others`: units of other names that run OptiLLM.
    """

    made: list[CreateFile]
    kept: list[Path]
    service: HandMade | None = None
    proposal: Proposal | None = None
    differences: list[tuple[Setting, object]] = field(default_factory=list)
    not_taken: list[NotTaken] = field(default_factory=list)
    others: list[HandMade] = field(default_factory=list)


def initialize(paths: Paths, dry_run: bool = False) -> Initialized:
    """Write the operator's files: configuration, env file, proxy key. Overwrites nothing.

    If there is a hand-made service, the files get its values. `dry_run`: write nothing.

    Raises:
        OptictlError: a file of it, or of the service, may not be read or written; or systemd is too
            old.
    """
    preflight.refuse_old_systemd(paths)
    try:
        service = reader.read(paths)
        proposed = _proposed(service, paths)
        artefacts = _operators_files(proposed, service, paths)
        installed = installed_files.read_all(artefacts, Manifest())
        missing = [a for a in artefacts if installed[a.path].attributes.kind == "missing"]
        outcome = _initialized(artefacts, missing, service, proposed, paths)
        for artefact in () if dry_run else missing:
            file_changes.put(artefact)
    except PermissionError as error:
        raise denied(error.filename) from None
    return outcome


def _proposed(service: HandMade | None, paths: Paths) -> Proposal | None:
    """The deployment that the values of a hand-made service lead to. LiteLLM is asked for its
    models where that is free.
    """
    if service is None:
        return None
    if service.denied:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(service.denied[0]))
    url = service.base_url.rstrip("/")
    url = url if url.endswith("/v1") else f"{url}/v1"
    listed: list[str] = []
    if service.upstream_key and not invariants.upstream_problem(url):
        answer = network.request("GET", f"{url}/models", key=service.upstream_key, timeout=2)
        listed = sorted(evidence.listed_models(answer))
    return proposal.propose(service, paths, listed)


def _operators_files(
    proposed: Proposal | None, service: HandMade | None, paths: Paths
) -> list[Artefact]:
    """The operator's files, with what was taken from a hand-made service."""
    config = proposed.config if proposed else Config()
    text = render.configuration(config)
    if proposed and service and proposed.settings:
        text = proposed.comment(service.path) + text
    # editors read the keys, their values and texts from there
    text = f"# yaml-language-server: $schema={render.schema_file()}\n{text}"
    key = (proposed.proxy_key if proposed else None) or new_proxy_key()
    upstream_key = proposed.upstream_key if proposed else None
    return [
        replace(a, text=proposal.with_upstream_key(a.text, upstream_key))
        if a.path == paths.env
        else a
        for a in operators_files(text, config, paths, key)
    ]


def _initialized(
    artefacts: Sequence[Artefact],
    missing: Sequence[Artefact],
    service: HandMade | None,
    proposed: Proposal | None,
    paths: Paths,
) -> Initialized:
    made = [CreateFile(artefact, reason="it is missing") for artefact in missing]
    kept = [a.path for a in artefacts if a not in missing]
    others = reader.others(paths)
    if proposed is None:
        return Initialized(made, kept, others=others)
    differences: list[tuple[Setting, object]] = []
    if paths.config in kept:
        with suppress(ConfigError, OptictlError):  # `check` reports what is wrong in it
            differences = proposed.differences(config_file.load(paths.config))
    texts = [files.read(path) if path in kept else None for path in (paths.env, paths.proxy_key)]
    not_taken = [*proposed.not_taken, *proposal.about_kept(proposed, paths, *texts)]
    return Initialized(made, kept, service, proposed, differences, not_taken, others)
