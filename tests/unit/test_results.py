"""Which failure is shown first, and the line that an operator reads at 3 a.m."""

from __future__ import annotations

from dataclasses import replace

import pytest

from optictl.results import Result, Status, good, is_proven, roots, summary


def result(id: str, status: Status = "fail", root_cause: str = "", **fields: object) -> Result:
    title = f"The title of {id}"
    return Result(id, title, status, root_cause=root_cause, **fields)


ENV = result(
    "env.forbidden",
    root_cause="env.forbidden",
    fault="A variable redirects OptiLLM",
    found="OPTILLM_API_KEY is set in /etc/optillm-proxy/env",
    cause="it switches OptiLLM to local inference",
    remedy="sed -i /x/d env && optictl restart",
)
DOWN = result(
    "service.active",
    root_cause="env.forbidden",
    fault="The service does not run",
    felt=True,
    found="failed",
)


def test_roots_come_in_the_order_of_what_they_explain() -> None:
    found = [
        result("a", root_cause="a"),
        result("b", root_cause="c"),
        result("c", "error", root_cause="c"),
        result("d", "skip", root_cause="c"),
        result("e", "warn"),
        result("f", "pass"),
        result("g"),
    ]
    assert [r.id for r in roots(found)] == ["c", "a", "g"]


def test_nothing_wrong_has_no_root() -> None:
    found = [result("b", "pass"), result("a", "skip"), result("c", "warn")]
    assert roots(found) == []
    assert good(found)
    assert summary(found) == "1 of 3 checks passed"
    assert summary(found[:1]) == "All good"
    assert summary([replace(found[0]), replace(found[1], applies=False)]) == "All good"


@pytest.mark.parametrize("found", [[], [result("a", "skip")], [result("a", "skip")] * 2])
def test_what_checked_nothing_proves_nothing(found: list[Result]) -> None:
    assert not is_proven(found)
    assert summary(found) == "Nothing was checked"


def test_the_line_names_what_clients_notice_then_the_root_and_what_fixes_it() -> None:
    assert summary([ENV, DOWN, result("health.alive", "skip", "env.forbidden")]) == (
        "The service does not run: OPTILLM_API_KEY is set in /etc/optillm-proxy/env (it switches "
        "OptiLLM to local inference). "
        "Fix: sed -i /x/d env && optictl restart"
    )


def test_a_root_that_nobody_notices_speaks_for_itself() -> None:
    assert summary([ENV]).startswith("A variable redirects OptiLLM: OPTILLM_API_KEY is set")
    reloaded = result("unit.reloaded", root_cause="env.forbidden", fault="Old text")
    assert summary([reloaded, ENV]).startswith(
        "A variable redirects OptiLLM: OPTILLM_API_KEY is set"
    )


def test_other_roots_are_named() -> None:
    other = result("key.strength", root_cause="key.strength", fault="The key is weak")
    assert summary([other, ENV, DOWN]).endswith("optictl restart (also failed: key.strength)")


def test_a_result_without_words_is_named_by_its_id() -> None:
    assert summary([result("moa-jerry-xl", found="401: no")]) == "moa-jerry-xl: 401: no."


def test_a_long_cause_is_cut_and_stays_on_one_line() -> None:
    line = summary([result("a", found="no", cause="a\nb " + "x" * 1000)])
    assert line.startswith("a: no (a b xxx")
    assert line.endswith("x...).")
    assert len(line) < 230


def test_json_has_the_fields_of_the_contract_and_others_where_they_say_something() -> None:
    contract = {"id", "title", "status", "expected", "found", "cause", "remedy"}
    assert result("a", "pass", fault="It is not").as_dict().keys() == contract
    assert result("a", "skip", "b", fault="It is not").as_dict().keys() == {*contract, "root_cause"}
    assert result("a", "fail", "a", fault="It is not", data={}).as_dict().keys() == {
        *contract,
        "root_cause",
        "fault",
        "data",
    }
