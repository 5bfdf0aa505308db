"""/metrics and /guard/state: a strategy's cost, compared with the upstream's, behind the key."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from optictl import records
from optictl.facts.guard_state import GuardState, Workers
from optictl.proof.standin import Reply, Seen
from testing.support import PROXY_KEY, STRATEGIES, UPSTREAM_KEY, wait_until

from .helpers import CALLS, MARK, Pair, assert_refused, guarded_pair, spent

pytestmark = pytest.mark.slow

Sample = tuple[str, frozenset[tuple[str, str]]]


@pytest.fixture(scope="module")
def running(release: Path) -> Iterator[Pair]:
    flags = ["--max-upstream-calls", "4", "--request-timeout", "5", "--deployment", "optillm-b"]
    with guarded_pair(release, strategies=[*STRATEGIES, "re2", "rstar"], extra=flags) as pair:
        yield pair


@pytest.fixture
def pair(running: Pair) -> Pair:
    return running.fresh()


def scrape(pair: Pair) -> dict[Sample, float]:
    """Every sample of /metrics."""
    response = pair.server.get("/metrics")
    assert response.status_code == 200
    families = text_string_to_metric_families(response.text)
    return {
        (s.name, frozenset(s.labels.items())): s.value
        for family in families
        for s in family.samples
    }


def key(name: str, **labels: str) -> Sample:
    return name, frozenset({"deployment": "optillm-b", **labels}.items())


def gained(before: dict[Sample, float], after: dict[Sample, float]) -> dict[Sample, float]:
    """What was counted between two scrapes, without lengths of time and the process's own."""
    assert {name for name, _ in after.keys() - before.keys()} == set(), (
        "a rate would not see the first of these"
    )
    grown = {
        sample: value - before[sample] for sample, value in after.items() if value != before[sample]
    }
    return {
        s: v
        for s, v in grown.items()
        if not s[0].startswith("process_") and not s[0].endswith(("_seconds_sum", "_bucket"))
    }


def of(strategy: str, **labels: str) -> dict[str, str]:
    return {"strategy": strategy, "base_model": "jerry-xl", **labels}


@pytest.mark.parametrize("strategy", ["moa", "bon", "plansearch"])
def test_a_request_is_counted_as_the_upstream_saw_it(pair: Pair, strategy: str) -> None:
    before = scrape(pair)
    assert pair.server.ask(f"{strategy}-jerry-xl", MARK).status_code == 200
    prompt, completion = spent(pair.upstream)
    assert gained(before, scrape(pair)) == {
        key("optillm_requests_total", **of(strategy, status="2xx")): 1,
        key("optillm_request_duration_seconds_count", **of(strategy)): 1,
        key("optillm_upstream_calls_per_request_count", **of(strategy)): 1,
        key("optillm_upstream_calls_per_request_sum", **of(strategy)): CALLS[strategy],
        key("optillm_upstream_calls_total", **of(strategy, status="2xx")): CALLS[strategy],
        key("optillm_upstream_call_duration_seconds_count", **of(strategy)): CALLS[strategy],
        key("optillm_upstream_tokens_total", **of(strategy, kind="prompt")): prompt,
        key("optillm_upstream_tokens_total", **of(strategy, kind="completion")): completion,
    }


@pytest.mark.parametrize(
    ("reply", "status", "calls_status", "reason", "code"),
    [
        (Reply(500, {"error": {"message": MARK}}), "5xx", "5xx", "5xx", "upstream_failed"),
        (
            Reply(429, {"error": {"message": MARK}}),
            "4xx",
            "4xx",
            "rate_limited",
            "upstream_rate_limited",
        ),
        (Reply(401, {"error": {"message": MARK}}), "5xx", "4xx", "4xx", "upstream_failed"),
        (Reply(delay=6), "5xx", "none", "ended", "request_timeout"),
    ],
)
def test_failures_have_a_reason_and_a_code(
    pair: Pair, reply: Reply, status: str, calls_status: str, reason: str, code: str
) -> None:
    before = scrape(pair)
    pair.upstream.respond = lambda _seen: reply
    pair.server.ask("re2-jerry-xl", MARK)
    failed = key("optillm_upstream_failures_total", **of("re2", reason=reason))
    wait_until(
        lambda: scrape(pair).get(failed, 0) > before.get(failed, 0)
    )  # a call may outlast its request
    found = gained(before, scrape(pair))
    assert found[key("optillm_requests_total", **of("re2", status=status))] == 1
    assert found[key("optillm_request_errors_total", **of("re2", code=code))] == 1
    assert (
        found[failed]
        == found[key("optillm_upstream_calls_total", **of("re2", status=calls_status))]
        >= 1
    )


def test_an_upstream_that_cannot_be_reached_is_a_failed_connection(release: Path) -> None:
    with guarded_pair(release, strategies=["re2"], extra=["--deployment", "optillm-b"]) as pair:
        pair.upstream._server.shutdown()
        pair.upstream._server.server_close()
        assert pair.server.ask("re2-jerry-xl").status_code == 502
        samples = scrape(pair)
    assert samples[key("optillm_upstream_failures_total", **of("re2", reason="connection"))] >= 1


def test_the_calls_limit_is_an_error_with_the_calls_it_let_through(pair: Pair) -> None:
    before = scrape(pair)
    assert pair.server.ask("rstar-jerry-xl").status_code == 400
    found = gained(before, scrape(pair))
    assert (
        found[key("optillm_request_errors_total", **of("rstar", code="upstream_call_limit"))] == 1
    )
    assert found[key("optillm_upstream_calls_per_request_sum", **of("rstar"))] == 4


def test_refusals_are_counted_by_code_and_what_was_asked_for_is_no_label(pair: Pair) -> None:
    before = scrape(pair)
    for number in range(20):
        assert_refused(pair.server.ask(f"{MARK}{number}-jerry-xl"), 400, "strategy_not_enabled")
        assert_refused(pair.server.get(f"/{MARK}{number}"), 400, "not_found")
    assert_refused(pair.server.post({"model": MARK}, key=MARK * 3), 401, "invalid_api_key")
    after = scrape(pair)
    assert gained(before, after) == {
        key("optillm_refusals_total", code="strategy_not_enabled"): 20,
        key("optillm_refusals_total", code="not_found"): 20,
        key("optillm_refusals_total", code="invalid_api_key"): 1,
    }
    text = pair.server.get("/metrics").text
    assert not [secret for secret in (MARK, PROXY_KEY, UPSTREAM_KEY, "stand-in") if secret in text]


def test_a_broken_loop_is_counted(pair: Pair) -> None:
    before = scrape(pair)

    def back(seen: Seen) -> Reply | None:
        body = {**(seen.body or {}), "model": "moa-jerry-xl"}
        answer = httpx.post(
            f"{pair.server.url}/chat/completions",
            json=body,
            headers={"Authorization": f"Bearer {PROXY_KEY}"},
            verify=False,
        )
        return Reply(answer.status_code, answer.json())

    pair.upstream.respond = back
    assert pair.server.ask("re2-jerry-xl").status_code == 421
    found = gained(before, scrape(pair))
    assert (
        found[key("optillm_loops_broken_total")]
        == found[key("optillm_refusals_total", code="loop_detected")]
        == 1
    )
    assert found[key("optillm_request_errors_total", **of("re2", code="loop_detected"))] == 1


def test_at_the_same_time_nothing_is_lost(pair: Pair) -> None:
    before = scrape(pair)
    with ThreadPoolExecutor(12) as pool:
        answers = list(
            pool.map(lambda number: pair.server.ask("moa-jerry-xl", str(number)), range(48))
        )
    assert {answer.status_code for answer in answers} == {200}
    found = gained(before, scrape(pair))
    assert found[key("optillm_requests_total", **of("moa", status="2xx"))] == 48
    assert (
        found[key("optillm_upstream_calls_total", **of("moa", status="2xx"))]
        == 144
        == len(pair.upstream.calls())
    )


@pytest.mark.parametrize("path", ["/metrics", "/guard/state"])
def test_both_are_behind_the_key(pair: Pair, path: str) -> None:
    for wrong in (None, "wrong", PROXY_KEY[:-1], UPSTREAM_KEY):
        assert_refused(pair.server.get(path, key=wrong), 401, "invalid_api_key")
    url, bearer = (
        pair.server.url.removesuffix("/v1") + path,
        {"Authorization": f"Bearer {PROXY_KEY}"},
    )
    assert_refused(httpx.post(url, headers=bearer, verify=False), 405, "method_not_allowed")


def test_what_is_in_flight_is_seen_while_it_is(pair: Pair) -> None:
    arrived, go_on = threading.Event(), threading.Event()

    def hold(_seen: Seen) -> None:
        arrived.set()
        go_on.wait(4)

    pair.upstream.respond = hold
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(pair.server.ask, "moa-jerry-xl", MARK)
        try:
            assert arrived.wait(5)
            state = pair.server.get("/guard/state")
            samples = scrape(pair)
        finally:
            go_on.set()
        answer = asked.result()
    (one,) = state.json()["in_flight"]
    assert one == {
        "trace": answer.headers["x-optillm-trace"],
        "strategy": "moa",
        "base_model": "jerry-xl",
        "age": one["age"],
        "upstream_calls": 1,
        "upstream_open": 1,
    }
    assert 0 <= one["age"] < 5
    assert MARK not in state.text
    assert samples[key("optillm_requests_in_flight", **of("moa"))] == 1
    assert samples[key("optillm_upstream_calls_in_flight", **of("moa"))] == 1
    assert pair.server.get("/guard/state").json()["in_flight"] == []
    assert scrape(pair)[key("optillm_requests_in_flight", **of("moa"))] == 0


def test_the_state_and_the_build_say_what_runs(pair: Pair, release: Path) -> None:
    state, samples = pair.server.get("/guard/state").json(), scrape(pair)
    (build,) = [dict(labels) for name, labels in samples if name == "optillm_build_info"]
    versions = {name: state[name] for name in ("optillm", "guard", "release")}
    assert build == {"deployment": "optillm-b", **versions}
    assert build["release"] == release.name
    assert state["ready"] is True
    assert state["uptime"] > 0
    record = records.parse(GuardState, state)
    assert (record.ready, record.strategies) == (True, tuple(state["strategies"]))
    assert record.workers == Workers(wanted=1, serving=1)
    assert samples[key("optillm_workers")] == 1
    assert record.waiting == 0
    assert record.max_in_flight is not None
    assert state["strategies"] == sorted([*STRATEGIES, "re2", "rstar"])
    assert samples[key("process_start_time_seconds")] > 1.7e9
    assert samples[key("process_resident_memory_bytes")] > 2**20
