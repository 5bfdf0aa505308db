"""The keys of a hand-made service that a deployment keeps. Pure."""

from __future__ import annotations

import re

from optictl.deployment.paths import Paths
from optictl.guard import invariants
from optictl.takeover.handmade import HandMade
from optictl.takeover.taken import NotTaken

#: A key without characters that need quotes in an env file.
_PLAIN_KEY = re.compile(r"[!-~]+")
_AWKWARD = frozenset("'\"\\$#;`")
_Key = tuple["str | None", str, list[NotTaken]]
#: A part of the reader's message for a value that only a running shell knows.
OUTPUT = "the output of a program"


def proxy_key(service: HandMade, paths: Paths) -> _Key:
    give = (
        f"LiteLLM must send the new key: replace the old key in LiteLLM's environment by the text "
        f"of {paths.proxy_key} ({paths.command('render litellm')} prints the entries), "
        "and restart LiteLLM"
    )
    where = service.where.get("proxy_key", "")
    weakness = invariants.key_weakness(service.proxy_key, service.upstream_key)
    if not service.proxy_key:
        unread = any(OUTPUT in p and "--optillm-api-key" in p for p in service.problems)
        why = f"it is {OUTPUT}" if unread else "clients need no key now"
        return None, "", [NotTaken("the proxy key", f"{why}; init generates a new one", give)]
    if weakness:
        why = f"it {weakness}; init generates a new one"
        return None, "", [NotTaken("the proxy key", why, give)]
    return service.proxy_key, where, []


def upstream_key(service: HandMade, paths: Paths) -> _Key:
    """OPENAI_API_KEY or the provider's key, for the new env file. None if that file has it."""
    where = service.where.get("OPENAI_API_KEY", "")
    if service.upstream_key:
        key = service.upstream_key
        if where == str(paths.env):
            return None, where, []
    else:
        if not (service.own_providers and service.provider_keys):
            return None, "", []
        key, where = service.provider_keys[0], f"api_key in {service.provider_config}"
    if not _PLAIN_KEY.fullmatch(key) or set(key) & _AWKWARD:
        why = "it contains characters that env files quote in different ways"
        return None, "", [NotTaken("OPENAI_API_KEY", why, f"write it into {paths.env}")]
    return key, where, []
