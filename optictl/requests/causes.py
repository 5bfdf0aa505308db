"""Why a strategy had no effect: what the call answered that lost it, in a few words. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from optictl.requests.tracing import Call, Trace

#: The most characters of an answer that are quoted.
_QUOTED = 60
#: A text with more words than this is a paragraph, and no attempt at a number.
_FEW_WORDS = 12
_AT_THE_LIMIT = ("_truncated", "_cut")


def cause(codes: Iterable[str], trace: Trace) -> str:
    """What the calls with these codes did; "" if the trace names none."""
    said = {}
    for code in codes:
        call = next((call for call in trace.calls if code in call.codes), None)
        if call is not None:
            said[code] = _said(code, call)
    return "; ".join(dict.fromkeys(said.values()))


def _said(code: str, call: Call) -> str:
    who = "the rating model" if call.purpose == "rating" else f"the call for the {call.purpose}"
    if call.purpose == "call":
        who = "a call"
    if call.failed:
        return f"{who} failed: {_quote(call.error or call.outcome)}"
    if call.answers is None:  # the request did not keep contents
        return f"{who} answered with {call.completion_tokens} tokens"
    text = _text(code, call)
    if not text:
        return f"{who} answered with no text after {call.completion_tokens} tokens"
    if code.endswith(_AT_THE_LIMIT):
        return f"{who} stopped after {call.completion_tokens} tokens: {_quote(text, end=True)}"
    shape = f" with {_shape(text)}" if code == "ratings_unreadable" else ""
    return f"{who} answered{shape}: {_quote(text)}"


def _text(code: str, call: Call) -> str:
    """The answer that a code means; of several the first one, or the first empty one."""
    texts = [" ".join(str(text or "").split()) for text in call.answers or ()]
    if code.endswith("_empty") and "" in texts:
        return ""
    return next(filter(None, texts), "")


def _shape(text: str) -> str:
    return "a paragraph" if len(text.split()) > _FEW_WORDS else "a text without a rating"


def _quote(text: str, *, end: bool = False) -> str:
    """The beginning of a text, or its end, in quotation marks and without signs for a terminal."""
    whole = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    if len(whole) <= _QUOTED:
        return f'"{whole}"'
    room = _QUOTED - 3
    return f'"...{whole[-room:].lstrip()}"' if end else f'"{whole[:room].rstrip()}..."'
