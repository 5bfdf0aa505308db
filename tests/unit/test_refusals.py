"""What the upstream refuses for what it is: the code, and whether a strategy may go on."""

from __future__ import annotations

from typing import Any

import pytest

from optictl.guard import accounting, refusals
from optictl.guard.accounting import Call


def error(**fields: Any) -> dict[str, Any]:
    return {"error": fields}


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (error(code="context_length_exceeded", message="too long"), "context_length_exceeded"),
        # as LiteLLM passes it on
        (
            error(code="400", message="litellm.ContextWindowExceededError: This model's maximum"),
            "context_length_exceeded",
        ),
        (error(type="exceed_context_size_error", code=400), "context_length_exceeded"),
        (error(code="400", message="ContentPolicyViolationError: no"), "content_filter"),
        (error(code="invalid_value", message="bad"), "invalid_value"),
        (error(code="400", message="bad"), "upstream_refused"),
        (error(code=None), "upstream_refused"),
        # LiteLLM without a database, asked with a wrong key
        (error(code="400", type="no_db_connection", message="No connected db."), ""),
        ({"error": "bad"}, "upstream_refused"),
        ({}, "upstream_refused"),
    ],
)
def test_the_code_says_what_an_error_means(data: dict[str, Any], code: str) -> None:
    assert refusals.code(data) == code


def request(*calls: Call) -> accounting.Request:
    return accounting.Request("moa", "jerry-xl", 64, 600.0, calls=list(calls))


@pytest.mark.parametrize(
    ("call", "before", "is_final"),
    [
        (Call("m", status=400, code="upstream_refused"), [], True),
        (Call("m", status=413, code="upstream_refused"), [], True),
        (Call("m", status=400, code=""), [], False),
        (Call("m", status=422, code="upstream_refused"), [Call("m", status=400, asked=3)], True),
        # the number of samples may be what it does not like
        (Call("m", status=400, code="upstream_refused", asked=3), [], False),
        (Call("m", status=400, asked=3, code="context_length_exceeded"), [], True),
        # the strategy made a prompt that is too long of a request that is not
        (Call("m", status=400, code="upstream_refused"), [Call("m", status=200)], False),
        (Call("m", status=401), [], False),
        (Call("m", status=429), [], False),
        (Call("m", status=500), [], False),
    ],
)
def test_only_the_request_itself_is_refused(call: Call, before: list[Call], is_final: bool) -> None:
    assert refusals.is_final(request(*before, call), call) is is_final


def test_the_client_gets_the_words_of_the_upstream() -> None:
    refusal = refusals.refusal(Call("m", status=413, code="upstream_refused", error="too large"))
    assert (refusal.status, refusal.code) == (413, "upstream_refused")
    assert refusal.message == "the upstream answered 413: too large"


@pytest.mark.parametrize(
    ("calls", "cause"),
    [
        ([], None),
        ([Call("m", status=200)], None),
        ([Call("m", status=401, asked=3), Call("m", status=429)], 0),
        ([Call("m", status=400, asked=3), Call("m", status=503)], 1),
        ([Call("m", status=400, asked=3)], 0),
        ([Call("m", status=200), Call("m", status=500), Call("m", status=429)], 1),
    ],
)
def test_the_call_to_blame(calls: list[Call], cause: int | None) -> None:
    blamed = request(*calls).cause
    assert blamed is (None if cause is None else calls[cause])
