"""The thinking that a reasoning model writes before its text: `<think>...</think>`. Pure."""

from __future__ import annotations

import re

_WHOLE = re.compile(r"\s*<think>.*?</think>\s*", re.DOTALL)
_OPEN = re.compile(r"\s*<think>")
#: Some servers leave out the first tag, because their prompt ends with it.
_END = re.compile(r".*?^\s*</think>\s*$\s*", re.DOTALL | re.MULTILINE)


def without(text: str) -> str:
    """The text without its thinking. Thinking that does not end is all of the text.

    Only thinking at the beginning counts: further down, a text may write about these tags.
    """
    if "think>" not in text:
        return text
    while whole := _WHOLE.match(text):
        text = text[whole.end() :]
    if _OPEN.match(text):
        return ""
    end = _END.match(text)
    return text[end.end() :] or text if end and "<think>" not in end.group() else text
