"""A request that the upstream refuses for what it is: no strategy and no retry can change that.

Its status and words go to the client. As a 502 it would be repeated: by the strategy, by LiteLLM
and by the client, each time with every call.
"""

from __future__ import annotations

from typing import Any

from . import accounting

#: Code -> words of an error with this meaning. LiteLLM names its classes in the message.
_MEANINGS = {
    "context_length_exceeded": (
        "contextwindowexceedederror",
        "context_length_exceeded",
        "maximum context length",
        "exceed_context_size",
        "context size",
    ),
    "content_filter": (
        "contentpolicyviolationerror",
        "content_policy_violation",
        "content_filter",
    ),
}
OTHER = "upstream_refused"
#: Types of errors about the service's own key. Source: LiteLLM without a database answers a wrong
#: key with 400.
_KEY_TYPES = ("no_db_connection", "auth_error")


def code(data: dict[str, Any]) -> str:
    """The code of an error body: what it means, the upstream's own code, or `upstream_refused`.

    "" if the error is about the service's own key.
    """
    error = data.get("error")
    if not isinstance(error, dict):
        return OTHER
    if error.get("type") in _KEY_TYPES:
        return ""
    words = " ".join(str(error.get(name) or "") for name in ("code", "type", "message")).lower()
    for meaning, signs in _MEANINGS.items():
        if any(sign in words for sign in signs):
            return meaning
    own = error.get("code")
    return own if isinstance(own, str) and own.isidentifier() else OTHER


def is_final(request: accounting.Request, call: accounting.Call) -> bool:
    """Whether a failed call shows that the request is refused, and the strategy need not go on.

    A refusal of several samples may be about their number, which a strategy can change. After a
    call that succeeded, a later one may be refused for what the strategy made of it.
    """
    is_known = call.code in _MEANINGS
    has_worked = any(not one.failed for one in list(request.calls))
    return is_about_request(call) and not has_worked and (call.asked == 1 or is_known)


def is_about_request(call: accounting.Call) -> bool:
    """Whether a call was refused for what was asked."""
    return call.status in accounting.REFUSALS and call.code != ""


def refusal(call: accounting.Call) -> accounting.Abort:
    """The error for the client: the status, the code and the words of the upstream."""
    said = f"the upstream answered {call.status}: {call.error}"
    return accounting.Abort(call.status, call.code, said)
