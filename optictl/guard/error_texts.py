"""Error texts that OptiLLM sends as answers, with status 200."""

from __future__ import annotations

#: Source: moa.py, bon.py, plansearch.py, mars/, self_consistency.py and the plugins majority_voting
#: and genselect of OptiLLM 0.3.12.
ERROR_TEXTS = (
    "Error: Could not generate any completions",
    "Error: Could not generate any candidates",
    "Error: Response was truncated due to token limit.",
    "Error generating solution:",
    "No consistent answer found.",
)


def is_error_text(text: str) -> bool:
    """Whether an answer is one of OptiLLM's error texts. MARS puts its own into thinking tags."""
    return text.removeprefix("<think>").lstrip().startswith(ERROR_TEXTS)
