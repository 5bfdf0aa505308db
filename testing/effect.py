"""Exchanges of a strategy with a model: as they should be, and with faults. For tests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hypothesis import strategies as st

from optictl.guard.exchanges import Exchange, Run, Sample


def exchange(
    step: str,
    *texts: str,
    finish: str = "stop",
    tokens: int = 20,
    id: str = "",
    question: int = 0,
    cut: bool = False,
) -> Exchange:
    """One exchange that returned these texts."""
    return Exchange(
        step,
        len(texts),
        [Sample(text, finish, id) for text in texts],
        cut=cut,
        completion_tokens=tokens,
        question=question,
    )


def candidates(*texts: str, asked: int | None = None, finish: str = "stop") -> Exchange:
    """The candidates of `moa` and `bon`, from one call."""
    whole = exchange("candidate", *texts, finish=finish)
    whole.asked = asked or len(texts)
    return whole


def ratings(*texts: str) -> list[Exchange]:
    """The ratings of `bon`."""
    return [exchange("rating", text, question=n) for n, text in enumerate(texts, 1)]


def samples(*texts: str, id: str = "") -> list[Exchange]:
    """The samples of self-consistency: equal questions, each asked in a call."""
    return [exchange("candidate", text, id=id or f"chatcmpl-{n}") for n, text in enumerate(texts)]


#: A whole plansearch.
OBSERVED = [
    exchange("observations", "1. It is a sum.\n2. It is small.", question=1),
    exchange("derived observations", "3. It fits into an integer.", question=2),
    exchange("solution", "Add the numbers.", question=3),
    exchange("final", "```python\nprint(1)\n```", question=4),
]

_TEXT = st.text(min_size=1, max_size=60).filter(
    lambda text: text.strip() and "think>" not in text and "<" not in text
)


def _distinct(count: int) -> st.SearchStrategy[list[str]]:
    return st.lists(_TEXT, min_size=count, max_size=count, unique_by=lambda text: text.strip())


@st.composite
def healthy(draw: Any, strategy: str) -> Run:
    """A run of a strategy in which every step did its part."""

    def texts(count: int) -> list[str]:
        return list(draw(_distinct(count)))

    def step(name: str) -> Exchange:
        return exchange(name, *texts(1), question=draw(st.integers(10, 99)))

    def each(names: Iterable[str]) -> list[Exchange]:
        return [step(name) for name in names]

    if strategy == "moa":
        return Run([candidates(*texts(3)), *each(("critique", "final"))])
    if strategy == "bon":
        numbers = draw(st.lists(st.integers(0, 100), min_size=3, max_size=3, unique=True))
        return Run([candidates(*texts(3)), *ratings(*(f"{n / 10:g}" for n in numbers))])
    if strategy == "self_consistency":
        return Run(samples(*texts(5)), agreement=(draw(st.integers(2, 5)), 5))
    if strategy == "plansearch":
        return Run(each(one.step for one in OBSERVED))
    if strategy == "cot_reflection":
        thought, reflected, output = texts(3)
        text = f"<thinking>{thought}<reflection>{reflected}</reflection></thinking>"
        return Run([exchange("final", f"{text}<output>{output}</output>")])
    if strategy == "re2":
        return Run([exchange("final", *texts(1))])
    return Run([exchange("call", text, question=n) for n, text in enumerate(texts(4))])
