"""Who asks, and in which trace: what goes along with every upstream call."""

from __future__ import annotations

from typing import Any

import pytest

from optictl.guard import carried

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
FIELDS = {"user": "alice", "safety_identifier": "a1", "metadata": {"tags": ["x"]}}


def test_fields_go_into_the_body() -> None:
    found = carried.of({}, {**FIELDS, "seed": 1, "model": "moa-jerry-xl"})
    body = {"model": "jerry-xl", "extra_headers": {"x-optillm-hop": "1"}}
    assert found.with_body(body) == {**body, **FIELDS}
    assert (dict(found.headers), found.traceparent) == ({}, "")


def test_a_trace_goes_to_litellm_and_to_the_model() -> None:
    trace = {"traceparent": TRACE, "tracestate": "vendor=1"}
    own = {"x-litellm-end-user-id": "alice", "x-litellm-tags": "a,b"}
    sent = {**trace, **own, "authorization": "Bearer k", "x-other": "y"}
    found = carried.of(sent, {})
    assert found.headers == {**trace, **own}
    body = found.with_body({"extra_headers": {"x-optillm-hop": "1"}})
    assert body == {"extra_headers": {"x-optillm-hop": "1", **trace}}
    assert found.traceparent == TRACE


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        TRACE.upper(),
        TRACE[:-1],
        TRACE + "-more",
        "ff" + TRACE[2:],
        "00-" + 32 * "0" + TRACE[35:],
        TRACE[:36] + 16 * "0" + TRACE[52:],
        f"{TRACE}\r\nx-evil: 1",
    ],
)
def test_a_trace_that_is_not_valid_is_left_out(traceparent: str) -> None:
    found = carried.of({"traceparent": traceparent, "tracestate": "a=b"}, {})
    assert found == carried.Carried()


def test_a_later_version_of_the_standard_is_passed_on() -> None:
    later = "01" + TRACE[2:] + "-more"
    assert carried.of({"traceparent": later}, {}).traceparent == later


@pytest.mark.parametrize("value", ["", "x" * 513, "a\x00b", "ü"])
def test_a_header_that_is_not_safe_is_left_out(value: str) -> None:
    found = carried.of({"x-litellm-tags": value, "traceparent": TRACE, "tracestate": value}, {})
    assert found.headers == {"traceparent": TRACE}


@pytest.mark.parametrize(
    ("data", "wrong"),
    [
        (FIELDS, None),
        ({"user": None}, None),
        ({"user": 3}, ("user", "text")),
        ({"safety_identifier": {}}, ("safety_identifier", "text")),
        ({"metadata": "a"}, ("metadata", "an object")),
    ],
)
def test_a_field_of_another_type_is_wrong(data: dict[str, Any], wrong: Any) -> None:
    assert carried.wrong_field(data) == wrong
