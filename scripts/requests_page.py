"""The generated parts of docs/reference/requests.md: what each strategy does with a request."""

from __future__ import annotations

from optictl.guard import parameters, strategy_options
from testing.support import ROOT

PAGE = ROOT / "docs/reference/requests.md"


def forms() -> str:
    """The table of the strategies whose answer can have a format or be a call of a tool."""
    lines = ["| Strategy | The call whose text is the answer | `response_format` | `tools` |"]
    lines += ["|---|---|---|---|"]
    for strategy, step in parameters.ANSWER_STEPS.items():
        which = {"": "its only one", None: "candidate"}.get(step, step)
        tools = "yes" if strategy in parameters.WITH_TOOLS else "400"
        lines.append(f"| `{strategy}` | {which} | yes | {tools} |")
    return "\n".join([*lines, "| all others | none | 400 | 400 |"])


def options() -> str:
    """The table of the options of all strategies."""
    lines = ["| Strategy | Option | OptiLLM | Range | Meaning |", "|---|---|---|---|---|"]
    lines += [
        f"| `{strategy}` | `{name}` | {option.default:g} | {option.least:g} to {option.most:g} "
        f"| {option.about} |"
        for strategy, known in strategy_options.OPTIONS.items()
        for name, option in known.items()
    ]
    return "\n".join(lines)


def tables() -> dict[str, str]:
    """Name of a part -> its text."""
    return {"forms": forms(), "options": options()}
