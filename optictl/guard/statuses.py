"""The statuses of the door, chosen for LiteLLM's router.

After some failures LiteLLM sends a deployment no request for a while (a cooldown, 5 s by default).
A strategy model has one deployment: its other clients then get 429 for one client's request.
"""

from __future__ import annotations

#: The 4xx that LiteLLM reads as a sick deployment. After 401 and 404 even a lone one cools down,
#: after the others one of several, or with `allowed_fails`. Source: LiteLLM 1.106.2 to 1.110.2,
#: measured (`tests/integration/litellm/test_statuses.py`).
COOLING = frozenset({401, 402, 404, 408, 429})
#: Those that a client of LiteLLM could provoke -> what the door answers instead.
_HARMLESS = {402: 400, 404: 400, 408: 400}


def harmless(status: int) -> int:
    """The status for the answer to a client of LiteLLM: one after which the model stays.

    401 stays: it is about LiteLLM's own key, which no client of LiteLLM chooses. 429 stays for the
    rate limit of the upstream: a lone deployment does not cool down after it.
    """
    return _HARMLESS.get(status, status)
