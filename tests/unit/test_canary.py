"""What the canary of an upgrade refuses: a release that lost an effect which the active one has."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from optictl.deployment.config import Config
from optictl.errors import ProofFailed
from optictl.host.network import Response
from optictl.operations import canary
from optictl.proof import evidence
from optictl.results import Result, Status

CONFIG = Config(strategies=("moa", "bon"))
NO_EFFECT = evidence.NO_EFFECT


def result(id: str, status: Status, fault: str = "") -> Result:
    return Result(id, id, status, found="why", fault=fault)


@pytest.mark.parametrize(
    ("new", "before", "is_refused"),
    [
        (result("moa", "pass"), [], False),
        (result("moa", "warn"), [result("moa", "pass")], False),
        (result("moa", "fail"), [], True),
        (result("moa", "fail"), [result("moa", "fail")], True),
        (result("moa", "fail", NO_EFFECT), [result("moa", "pass")], True),
        (result("moa", "fail", NO_EFFECT), [result("moa", "warn")], True),
        # the upstream is the cause
        (result("moa", "fail", NO_EFFECT), [result("moa", "fail", NO_EFFECT)], False),
        # nothing to compare it with
        (result("moa", "fail", NO_EFFECT), [], False),
        (result("moa", "fail", NO_EFFECT), [result("bon", "pass")], False),
    ],
)
def test_a_release_is_refused_for_what_it_lost(
    new: Result, before: list[Result], is_refused: bool
) -> None:
    if not is_refused:
        canary.refuse_failed([new], before)
        return
    with pytest.raises(ProofFailed, match=r"^moa: why$"):
        canary.refuse_failed([new], before)


def answers(monkeypatch: pytest.MonkeyPatch, effects: list[str]) -> list[str]:
    """Each request gets the next of these effects; returns the models that were asked."""
    asked: list[str] = []

    def run(url: str, key: str, model: str, prompt: str, timeout: float) -> Response:
        asked.append(model)
        level = effects.pop(0)
        headers = {
            "x-optillm-strategy": model.split("-")[0],
            "x-optillm-upstream-completions": "5",
            "x-optillm-upstream-models": "jerry-xl",
            "x-optillm-effect": level,
            **({"x-optillm-degraded": "critique_empty"} if level == "none" else {}),
        }
        text = json.dumps({"choices": [{"message": {"content": "Five cents."}}]})
        return Response(200, text, headers)

    monkeypatch.setattr(evidence, "run", run)
    return asked


def smokes(say: Callable[[str], None] = lambda text: None) -> list[Status]:
    results = canary.smokes(CONFIG, "http://127.0.0.1:1/v1", "key", CONFIG.strategies, say)
    return [r.status for r in results]


def test_without_effect_it_is_asked_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, said = answers(monkeypatch, ["none", "full", "full"]), list[str]()
    assert smokes(said.append) == ["pass", "pass"]
    assert asked == ["moa-jerry-xl", "moa-jerry-xl", "bon-jerry-xl"]
    assert "asking moa-jerry-xl once more: it had no effect" in said


def test_twice_without_effect_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answers(monkeypatch, ["none", "none", "weak"])
    assert smokes() == ["fail", "warn"]
    assert len(asked) == 3
