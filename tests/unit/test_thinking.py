"""The thinking of a reasoning model, taken out of its text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optictl.guard import thinking


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        ("4", "4"),
        ("<think>2+2</think>4", "4"),
        ("\n<think>\n2+2\n</think>\n\n4\n", "4\n"),
        ("<think>a</think><think>b</think>4", "4"),
        ("<think></think>4", "4"),
        ("<think>the limit ended it", ""),
        ("2+2\n</think>\n\n4", "4"),
        # further down, a text writes about the tags
        ("Models write <think>...</think> first.", "Models write <think>...</think> first."),
        ("The tag </think> ends it.", "The tag </think> ends it."),
        ("x\n</think>\n", "x\n</think>\n"),
        ("", ""),
    ],
)
def test_what_is_left_without_thinking(text: str, bare: str) -> None:
    assert thinking.without(text) == bare


@given(st.text(max_size=100), st.text(max_size=100))
def test_thinking_before_a_text_is_taken_out(thought: str, text: str) -> None:
    if "think>" not in thought + text:
        assert thinking.without(f"<think>{thought}</think>{text}") == text.lstrip()
        assert thinking.without(text) == text
