"""The checks: nothing installed, by options, by optictl.yaml, and next to a running LiteLLM."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from optictl.checks import catalog
from optictl.deployment import paths
from optictl.deployment.config import Config
from optictl.facts.deployment import Deployment
from optictl.host import network
from optictl.proof.standin import Reply, Seen, StandIn
from optictl.results import Result
from tests.integration.cli.helpers import assert_envelope, configured, optictl

from .test_judge import GOOD, KEY

IDS = [
    "routing.no-loop",
    "routing.reached",
    "routing.prefixed",
    "routing.enabled",
    "routing.base-served",
    "routing.apis",
    "routing.retries",
    "routing.key",
]
LOOP = "router_settings:\n  fallbacks:\n    - jerry-xl: [moa-jerry-xl]\n"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """litellm.yaml and litellm.env in a separate directory; nothing is installed anywhere."""
    (tmp_path / "litellm.yaml").write_text(GOOD)
    (tmp_path / "litellm.env").write_text(f"# LiteLLM's\nKEY='{KEY}'\n")
    return tmp_path


def statuses(results: list[dict[str, str]]) -> dict[str, str]:
    return {r["id"]: r["status"] for r in results}


class TestWithNothingInstalled:
    def check(self, files: Path, *options: str | Path) -> list[dict[str, str]]:
        arguments = ["check", "--only", "routing", "--root", files / "root", "-o", "json", *options]
        outcome = optictl(*arguments, home=files)
        results = assert_envelope(outcome.data, "check", "ok" if outcome.code == 0 else "failed")
        assert "Traceback" not in outcome.err
        return results

    def test_a_good_configuration(self, files: Path) -> None:
        results = self.check(
            files,
            "--litellm-config",
            files / "litellm.yaml",
            "--litellm-env",
            files / "litellm.env",
        )
        # there is no proxy key to compare with
        assert statuses(results) == {**dict.fromkeys(IDS, "pass"), "routing.key": "skip"}

    def test_a_loop_is_the_root_cause_with_its_way_and_line(self, files: Path) -> None:
        (files / "litellm.yaml").write_text(GOOD + LOOP)
        results = self.check(
            files, "--litellm-config", "litellm.yaml", "--litellm-env", "litellm.env"
        )
        assert statuses(results) == {
            **dict.fromkeys(IDS, "pass"),
            "routing.no-loop": "fail",
            "routing.key": "skip",
        }
        found = results[0]["found"]
        assert (
            found == "jerry-xl -> [fallback] moa-jerry-xl -> OptiLLM -> jerry-xl (litellm.yaml:14)"
        )

    def test_a_base_model_at_optillm_is_one_fault(self, files: Path) -> None:
        (files / "litellm.yaml").write_text(
            GOOD.replace("openai/real", "openai/jerry-xl").replace("10.0.0.7", "localhost:4020")
        )
        results = self.check(
            files, "--litellm-config", "litellm.yaml", "--litellm-env", "litellm.env"
        )
        red = {
            r["id"]: r["root_cause"]
            for r in results
            if r["status"] == "fail"
            and r["id"] in ("routing.no-loop", "routing.prefixed", "routing.base-served")
        }
        assert red == dict.fromkeys(
            ("routing.no-loop", "routing.prefixed", "routing.base-served"), "routing.no-loop"
        )

    def test_without_an_environment_its_variables_are_named(self, files: Path) -> None:
        (files / "litellm.yaml").write_text(GOOD.replace("http://10.0.0.7/v1", "os.environ/WHERE"))
        results = self.check(files, "--litellm-config", "litellm.yaml")
        passed = dict.fromkeys(("routing.reached", "routing.apis", "routing.retries"), "pass")
        assert statuses(results) == {**dict.fromkeys(IDS, "skip"), **passed}
        for result in results:
            if result["status"] == "skip":
                assert ("KEY" if result["id"] == "routing.key" else "WHERE") in result["found"]

    def test_without_a_configuration_it_is_a_skip_that_says_how_to_name_one(
        self, files: Path
    ) -> None:
        results = self.check(files)
        assert statuses(results) == dict.fromkeys(IDS, "skip")
        assert all("--litellm-config PATH" in r["found"] for r in results)

    @pytest.mark.parametrize(
        ("text", "found"),
        [
            ("a: [\n", "litellm.yaml:2: not valid YAML"),
            (
                "include: [no.yaml]\n",
                "litellm.yaml:1: includes no.yaml, but no.yaml does not exist",
            ),
            (None, "litellm.yaml does not exist"),
        ],
    )
    def test_what_litellm_would_not_start_with_is_one_failure(
        self, files: Path, text: str | None, found: str
    ) -> None:
        (files / "litellm.yaml").write_text(text or "") if text else (
            files / "litellm.yaml"
        ).unlink()
        results = self.check(files, "--litellm-config", "litellm.yaml")
        assert statuses(results) == {**dict.fromkeys(IDS, "skip"), "routing.no-loop": "fail"}
        assert found in results[0]["found"]
        assert results[0]["remedy"]
        # no request was seen to come back
        assert results[0]["fault"] == "LiteLLM's configuration cannot be read"
        assert all("see routing.no-loop" in r["found"] for r in results[1:])

    def test_a_directory_in_place_of_the_file(self, files: Path) -> None:
        results = self.check(files, "--litellm-config", files)
        assert "Is a directory" in results[0]["found"]

    def test_a_missing_environment_is_told(self, files: Path) -> None:
        results = self.check(files, "--litellm-config", "litellm.yaml", "--litellm-env", "no.env")
        assert all("LiteLLM's env file no.env does not exist" in r["found"] for r in results)


def test_optictl_yaml_names_both_files(files: Path) -> None:
    root = configured(
        files / "root", "litellm: {config: ../../../litellm.yaml, env: ../../../litellm.env}\n"
    )
    outcome = optictl("check", "--only", "routing", "--root", root, "-o", "json", home=files)
    # there is no proxy key to compare with
    assert statuses(outcome.data["results"]) == {
        **dict.fromkeys(IDS, "pass"),
        "routing.key": "skip",
    }


def test_no_key_is_ever_shown(files: Path) -> None:
    (files / "litellm.yaml").write_text(GOOD.replace("os.environ/KEY", "sk-secret-of-somebody"))
    outcome = optictl(
        "check",
        "--only",
        "routing",
        "--root",
        files / "r",
        "--litellm-config",
        "litellm.yaml",
        home=files,
    )
    assert "secret" not in outcome.out + outcome.err


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("model: moa-x", "reads that as a strategy and removes it"),
        ("model: moa-", "no name is left"),
        ("model: router", "no name is left"),
        ("model: Moa-x", "lower case only"),
        ("model: a&b", "one after the other"),
        ("model: a|b", "side by side"),
        ("publish: {bon-fast: moa-jerry-xl}", "looks like the strategy 'bon'"),
    ],
)
def test_render_litellm_refuses_names_that_optillm_would_mangle(
    tmp_path: Path, text: str, reason: str
) -> None:
    outcome = optictl(
        "render-litellm", "--root", configured(tmp_path / "root", text + "\n"), home=tmp_path
    )
    assert (outcome.code, outcome.out) == (78, "")
    assert reason in " ".join(outcome.err.split())


class Running:
    """A running LiteLLM of which only /v1/model/info is asked."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.rows: object = []
        self.status = 200
        self.asked: list[Seen] = []
        self.standin = StandIn(respond=self._respond)

    def _respond(self, seen: Seen) -> Reply | None:
        self.asked.append(seen)
        return Reply(
            self.status,
            {"data": self.rows}
            if self.status == 200
            else {"error": {"message": "not for this key"}},
        )

    def check(
        self, litellm_config: Path | None = None, key: str = "sk-some-key"
    ) -> dict[str, Result]:
        place = paths.system(self.directory / "root")
        config = Config().moved(4020, self.standin.base_url)
        place.etc.mkdir(parents=True, exist_ok=True)
        place.config.write_text(f"upstream: {{base_url: '{config.upstream.base_url}'}}\n")
        place.env.write_text(f"OPENAI_API_KEY={key}\n")
        place.proxy_key.write_text(f"{KEY}\n")
        env = self.directory / "litellm.env" if litellm_config else None
        site = Deployment(place, None, litellm_config, env)
        return {r.id: r for r in catalog.run(catalog.select(["routing"]), site) if r.id in IDS}


@pytest.fixture
def running(files: Path) -> Iterator[Running]:
    found = Running(files)
    with found.standin.running():
        yield found


def row(name: str, model: str, base: str, **more: object) -> dict[str, object]:
    return {
        "model_name": name,
        "litellm_params": {"model": model, "api_base": base, **more},
        "model_info": {"id": "x"},
    }


MOA = row(
    "moa-jerry-xl",
    "custom_openai/moa-jerry-xl",
    "http://127.0.0.1:4020/v1",
    num_retries=0,
    max_retries=0,
)
JERRY = row("jerry-xl", "openai/real", "http://10.0.0.7/v1")


class TestRunning:
    def test_what_it_lists_is_judged_without_a_configuration(self, running: Running) -> None:
        running.rows = [
            MOA,
            row("jerry-xl", "openai/jerry-xl", "http://localhost:4020/v1", num_retries=3),
        ]
        results = running.check()
        assert {id for id, r in results.items() if r.status == "fail"} == {
            "routing.no-loop",
            "routing.prefixed",
            "routing.base-served",
            "routing.retries",
        }
        assert "jerry-xl -> OptiLLM -> jerry-xl" in results["routing.no-loop"].found
        assert f"{running.standin.base_url} entry:2" in results["routing.no-loop"].found

    def test_it_alone_is_no_pass(self, running: Running) -> None:
        running.rows = [MOA, JERRY]
        results = running.check()
        assert {r.status for r in results.values()} == {"skip"}
        assert "2 entries of the running LiteLLM checked too" in results["routing.no-loop"].found

    def test_its_entries_meet_the_fallbacks_of_the_configuration(
        self, running: Running, files: Path
    ) -> None:
        # the file's own base model is good; a model that was added meanwhile is not
        (files / "litellm.yaml").write_text(
            GOOD + "router_settings: {fallbacks: [{jerry-xl: [new]}]}\n"
        )
        running.rows = [
            MOA,
            JERRY,
            row("new", "openai/bon-jerry-xl", "http://127.0.0.1:4020/v1", num_retries=0),
        ]
        results = running.check(files / "litellm.yaml")
        assert results["routing.no-loop"].status == "fail"
        assert (
            "jerry-xl -> [fallback] new -> OptiLLM, as 'bon-jerry-xl' -> jerry-xl"
            in results["routing.no-loop"].found
        )

    def test_the_pass_says_that_both_were_seen(self, running: Running, files: Path) -> None:
        running.rows = [MOA, JERRY]
        results = running.check(files / "litellm.yaml")
        assert {r.status for r in results.values()} == {"pass"}
        assert "2 entries of the running LiteLLM checked too" in results["routing.no-loop"].found
        assert [seen.headers["authorization"] for seen in running.asked] == ["Bearer sk-some-key"]

    @pytest.mark.parametrize("status", [401, 403])
    def test_a_key_that_may_not_ask_is_said_and_no_failure(
        self, running: Running, files: Path, status: int
    ) -> None:
        running.status = status
        results = running.check(files / "litellm.yaml")
        assert {r.status for r in results.values()} == {"pass"}
        assert (
            f"does not list its models for this key ({status})" in results["routing.no-loop"].found
        )

    @pytest.mark.parametrize(
        "rows",
        ["many", [], [1, {}, {"litellm_params": []}, {"litellm_params": {"model": 3}}], None],
    )
    def test_an_answer_of_another_shape_is_no_failure(
        self, running: Running, files: Path, rows: object
    ) -> None:
        running.rows = rows
        assert {r.status for r in running.check(files / "litellm.yaml").values()} == {"pass"}

    def test_one_that_is_down_is_no_failure_of_the_routing(self, files: Path) -> None:
        down = Running(files)
        down.standin._server.server_close()
        results = down.check(files / "litellm.yaml")
        assert {r.status for r in results.values()} == {"pass"}
        assert "the running LiteLLM did not list its models: " in results["routing.no-loop"].found


def test_this_machine_has_names() -> None:
    names = network.local_names()
    assert {"localhost", "127.0.0.1", "::1"} <= names
    assert all(name == name.lower() and name for name in names)
