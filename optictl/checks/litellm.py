"""Checks of the LiteLLM in front of the service."""

from __future__ import annotations

from collections.abc import Iterator

from optictl.checks.engine import Finding, Skip, check
from optictl.facts.deployment import Deployment
from optictl.litellm import versions


@check(
    "litellm.version",
    "LiteLLM's version is one that the routing rules know",
    f"LiteLLM {versions.COMPARED}",
    fault="The routing rules were not compared with this version of LiteLLM",
    requires=("config.valid",),
)
def litellm_version(deployment: Deployment) -> Iterator[Finding]:
    """The running LiteLLM has a version that optictl's routing rules were compared with.

    How: asks the running LiteLLM for its version, at /public/model_hub/info and /health/readiness,
    which spends no token. It does not ask /openapi.json: LiteLLM answers no other request for
    ten seconds while it makes that document. It is skipped if LiteLLM does not answer.
    Why: the routing checks follow a configuration as these versions of LiteLLM do. Another version
    may have other settings, defaults and provider prefixes.
    """
    version = deployment.litellm.version
    position = versions.position(version)
    if position is None:
        raise Skip(f"LiteLLM reports the version {version!r}, which optictl cannot read")
    if position == "compared":
        yield Finding(f"LiteLLM {version}")
        return
    newer = position == "newer"
    edge = f"newer than {versions.NEWEST}" if newer else f"older than {versions.OLDEST}"
    yield Finding(
        f"LiteLLM {version} is {edge}; the routing rules were compared with {versions.COMPARED}",
        "warn",
        "update optictl" if newer else f"update LiteLLM to {versions.OLDEST} or later",
        "the routing checks may miss a loop or report one that does not exist",
    )
