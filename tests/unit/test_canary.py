"""What the canary of an upgrade refuses: a release that lost an effect which the active one has."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from optictl.deployment import paths
from optictl.deployment.config import Config
from optictl.errors import ProofFailed
from optictl.host.network import Response
from optictl.operations import canary
from optictl.operations.canary import Canary, Proof
from optictl.proof import evidence
from optictl.results import Result, Status

CONFIG = Config(strategies=("moa", "bon"))
NO_EFFECT = evidence.NO_EFFECT


def result(id: str, status: Status, fault: str = "") -> Result:
    return Result(id, id, status, found="why", fault=fault)


BETTER, NO_BETTER = "; the active release did better", "; the active release did no better"
NOT_ASKED = "; the active release was not asked"


@pytest.mark.parametrize(
    ("new", "before", "status", "words"),
    [
        (result("moa", "pass"), [], "pass", ""),
        (result("moa", "pass"), [result("moa", "fail")], "pass", ""),
        (result("moa", "warn"), [], "warn", ""),
        (result("moa", "warn"), [result("moa", "pass")], "warn", BETTER),
        (result("moa", "warn"), [result("moa", "warn")], "warn", NO_BETTER),
        (result("moa", "fail"), [], "fail", ""),
        (result("moa", "fail"), [result("moa", "fail")], "fail", NO_BETTER),
        # the effect is lost
        (result("moa", "fail", NO_EFFECT), [result("moa", "pass")], "fail", BETTER),
        (result("moa", "fail", NO_EFFECT), [result("moa", "warn")], "fail", BETTER),
        # the upstream is the cause
        (
            result("moa", "fail", NO_EFFECT),
            [result("moa", "fail", NO_EFFECT)],
            "warn",
            NO_BETTER,
        ),
        (result("moa", "fail", NO_EFFECT), [result("moa", "fail")], "warn", NO_BETTER),
        # nothing to compare it with
        (result("moa", "fail", NO_EFFECT), [], "warn", NOT_ASKED),
        (result("moa", "fail", NO_EFFECT), [result("bon", "pass")], "warn", NOT_ASKED),
    ],
)
def test_a_release_is_refused_for_what_it_lost(
    new: Result, before: list[Result], status: Status, words: str
) -> None:
    (judged,) = canary.compared([new], before)
    assert (judged.status, judged.found) == (status, f"why{words}")
    if status != "fail":
        canary.refuse_failed([judged])
        return
    with pytest.raises(ProofFailed) as refused:
        canary.refuse_failed([judged])
    assert refused.value.what == f"moa: why{words}"


def test_a_refusal_for_a_lost_effect_has_its_fix() -> None:
    lost = replace(result("moa", "fail", NO_EFFECT), remedy="raise effect.critique_tokens")
    broken = replace(result("bon", "fail"), remedy="optictl check names what is wrong")
    with pytest.raises(ProofFailed) as refused:
        canary.refuse_failed(
            canary.compared([lost, broken], [result("moa", "pass"), result("bon", "pass")])
        )
    assert refused.value.what.startswith("moa: why; the active release did better; bon: why; ")
    assert refused.value.remedy == "raise effect.critique_tokens"


@pytest.mark.parametrize(
    ("new", "active", "is_refused"),
    [("none", "none", False), ("none", "full", True), ("full", "none", False)],
)
def test_a_canary_reports_what_it_judged(
    new: str, active: str, is_refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each release is asked both strategies, and once more without effect."""
    effects = [level for of in (new, active) for level in [of] * (4 if of == "none" else 2)]
    asked = answers(monkeypatch, effects)

    def ask_release(config: Config, *_: object) -> list[Result]:
        return smoked(config)

    monkeypatch.setattr(canary, "ask_release", ask_release)
    proofs: list[Proof] = []
    made = Canary(CONFIG, "0.3.12-old", "", "key", True, proofs.append)
    with pytest.raises(ProofFailed) if is_refused else nullcontext() as refused:
        made.prove(CONFIG, paths.system(Path("/srv/x")), "0.3.13-new", lambda text: None)
    assert effects == []
    assert len(asked) == (4 if new == "none" else 2) + (4 if active == "none" else 2)
    (proof,) = proofs
    expected = "pass" if new == "full" else "fail" if is_refused else "warn"
    assert [r.status for r in proof.new] == [expected] * 2
    if new == "none":
        # the code, and its fix with the command for this deployment
        assert all("(critique_empty); the active release did" in r.found for r in proof.new)
        assert all("optictl install --root /srv/x" in r.remedy for r in proof.new)
    if refused is not None:
        assert "optictl install --root /srv/x" in refused.value.remedy


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


def smoked(config: Config, say: Callable[[str], None] = lambda text: None) -> list[Result]:
    return canary.smokes(config, "http://127.0.0.1:1/v1", "key", config.strategies, say)


def smokes(say: Callable[[str], None] = lambda text: None) -> list[Status]:
    return [r.status for r in smoked(CONFIG, say)]


def test_without_effect_it_is_asked_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, said = answers(monkeypatch, ["none", "full", "full"]), list[str]()
    assert smokes(said.append) == ["pass", "pass"]
    assert asked == ["moa-jerry-xl", "moa-jerry-xl", "bon-jerry-xl"]
    assert "asking moa-jerry-xl once more: it had no effect" in said


def test_twice_without_effect_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answers(monkeypatch, ["none", "none", "weak"])
    assert smokes() == ["fail", "warn"]
    assert len(asked) == 3
