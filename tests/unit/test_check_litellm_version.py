"""litellm.version: where the version comes from, and what is said of one outside the range."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from optictl.checks import catalog
from optictl.deployment import paths
from optictl.facts.deployment import Deployment
from optictl.host import network
from optictl.host.network import Response
from optictl.litellm import versions
from optictl.results import Result

HUB, READY, DETAILS = "/public/model_hub/info", "/health/readiness", "/health/readiness/details"
KEY = "sk-a-key-of-litellm"


class Server:
    """A server in LiteLLM's place: path -> its JSON."""

    def __init__(self, answers: dict[str, Any], error: str = "") -> None:
        self.answers, self.error = answers, error
        self.asked: list[tuple[str, str | None]] = []

    def request(self, method: str, url: str, *, key: str | None = None, **_: Any) -> Response:
        path = url.removeprefix("http://127.0.0.1:4000")
        self.asked.append((path, key))
        if self.error:
            return Response(0, error=self.error)
        known = path in self.answers
        return Response(200 if known else 404, json.dumps(self.answers.get(path, {"detail": "x"})))


def check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server, env: str | None = None
) -> Result:
    place = paths.system(tmp_path)
    place.etc.mkdir(parents=True)
    place.config.write_text("upstream: {base_url: 'http://127.0.0.1:4000/v1'}\n")
    if env is not None:
        place.env.write_text(env)
    monkeypatch.setattr(network, "request", server.request)
    (result,) = catalog.run(catalog.select(["litellm.version"]), Deployment(place))
    return result


def reporting(version: object) -> Server:
    return Server({HUB: {"litellm_version": version}})


@pytest.mark.parametrize("version", [versions.OLDEST, "1.108.7", versions.NEWEST])
def test_a_version_of_the_range_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    result = check(tmp_path, monkeypatch, reporting(version))
    assert (result.status, result.found) == ("pass", f"LiteLLM {version}")
    assert versions.COMPARED in result.expected


@pytest.mark.parametrize(
    ("version", "found", "remedy"),
    [
        ("1.111.0", f"LiteLLM 1.111.0 is newer than {versions.NEWEST}", "update optictl"),
        ("1.80.0", f"LiteLLM 1.80.0 is older than {versions.OLDEST}", "update LiteLLM to 1.106.2"),
    ],
)
def test_outside_the_range_is_a_warning_that_says_what_it_means(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, found: str, remedy: str
) -> None:
    result = check(tmp_path, monkeypatch, reporting(version))
    assert result.status == "warn"
    assert result.found.startswith(found)
    assert versions.COMPARED in result.found
    assert result.remedy.startswith(remedy)
    assert "may miss a loop" in result.cause


def test_one_that_does_not_answer_is_a_skip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server({}, error="Connection refused: 127.0.0.1:4000")
    result = check(tmp_path, monkeypatch, server)
    assert result.status == "skip"
    assert result.found == (
        "LiteLLM at http://127.0.0.1:4000 does not answer: Connection refused: 127.0.0.1:4000"
    )
    assert server.asked == [(HUB, None)]  # it does not wait for each of the places


@pytest.mark.parametrize("version", [None, 3, ["1.106.2"]])
def test_another_server_is_a_skip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: object
) -> None:
    result = check(tmp_path, monkeypatch, reporting(version))
    assert result.status == "skip"
    assert "reports no version of LiteLLM" in result.found


def test_a_version_of_another_form_is_a_skip_that_quotes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = check(tmp_path, monkeypatch, reporting("nightly"))
    assert (result.status, "'nightly'" in result.found) == ("skip", True)


@pytest.mark.parametrize("place", [HUB, READY, DETAILS])
def test_the_key_is_sent_only_where_it_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    server = Server({place: {"litellm_version": "1.108.7"}})
    result = check(tmp_path, monkeypatch, server, f"OPENAI_API_KEY={KEY}\n")
    assert result.status == "pass"
    asked = [HUB, READY, DETAILS][: [HUB, READY, DETAILS].index(place) + 1]
    assert server.asked == [(path, KEY if path == DETAILS else None) for path in asked]
