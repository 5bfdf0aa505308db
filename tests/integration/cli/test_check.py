"""check, smoke and run where nothing is installed and nothing runs."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from optictl.checks import catalog
from optictl.results import SEVERITY
from tests.integration.cli.helpers import (
    SMOKE_DATA,
    assert_envelope,
    configured,
    optictl,
    together,
    tree,
)

KEYS = {"id", "title", "status", "expected", "found", "cause", "remedy"}
IDS = [check.id for check in catalog.all_checks()]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return configured(tmp_path / "root")


class TestCheck:
    def test_json_is_the_contract(self, root: Path, tmp_path: Path) -> None:
        outcome = optictl("check", "--root", root, "--output", "json", home=tmp_path)
        assert outcome.code == 1
        results = assert_envelope(outcome.data, "check", "failed")
        assert outcome.data["summary"].startswith("The service does not answer: ")
        assert [r["id"] for r in results] == IDS
        for result in results:
            assert result.keys() - {"data", "fault", "root_cause", "applies"} == KEYS
            assert result["status"] in SEVERITY
            assert all(isinstance(result[key], str) for key in KEYS)
            assert result["found"]
            if result["status"] in ("fail", "error", "warn"):
                assert result["remedy"], result

    def test_nothing_crashes_where_nothing_is(self, tmp_path: Path) -> None:
        results = optictl(
            "check", "--root", configured(tmp_path / "root"), "-o", "json", home=tmp_path
        ).data["results"]
        assert [r for r in results if r["status"] == "error"] == []

    def test_text_names_each_check_and_what_fixes_it(self, root: Path, tmp_path: Path) -> None:
        outcome = optictl("check", "--root", root, home=tmp_path)
        assert outcome.code == 1
        rows = {line.split()[1]: line.split()[0] for line in outcome.out.splitlines()[: len(IDS)]}
        assert list(rows) == IDS
        assert rows["env.upstream-key"] == "fail"
        assert rows["config.valid"] == "pass"
        assert f"optictl init --root {root}" in outcome.out
        wrong, counts = outcome.out.splitlines()[-2:]
        assert wrong == (
            "The service does not answer: see release.in-force"
            " (also failed: env.upstream-key, key.strength)"
        )
        # no sentence stands there twice
        for line in outcome.out.splitlines()[: len(IDS)]:
            status, _, words = (*line.split(maxsplit=2), "")[:3]
            # a file that does not exist may explain two failures
            told = [row for row in outcome.out.splitlines() if words in row]
            assert status != "fail" or told == [r for r in told if r.startswith("fail ")], line
        assert counts.startswith("(6 fail, ")
        # the root causes are explained before their consequences
        told = [
            line.split()[0]
            for line in outcome.out.splitlines()[len(IDS) :]
            if line.split()[:1] and line.split()[0] in IDS
        ]
        assert told[:4] == ["release.in-force", "env.upstream-key", "key.strength", "health.alive"]
        assert "fix release.in-force, which explains it" in outcome.out

    def test_words_for_people_are_no_errno(self, root: Path, tmp_path: Path) -> None:
        assert "Errno" not in optictl("check", "--root", root, home=tmp_path).out

    def test_it_writes_nothing(self, root: Path, tmp_path: Path) -> None:
        before = tree(tmp_path)
        optictl("check", "--root", root, home=tmp_path)
        assert tree(tmp_path) == before

    def test_only_one(self, root: Path, tmp_path: Path) -> None:
        outcome = optictl(
            "check", "--root", root, "--only", "config.valid", "--output", "json", home=tmp_path
        )
        assert outcome.code == 0
        (result,) = assert_envelope(outcome.data, "check", "ok")
        assert (result["id"], result["status"]) == ("config.valid", "pass")

    def test_only_a_family_and_one_more(self, root: Path, tmp_path: Path) -> None:
        outcome = optictl(
            "check",
            "--root",
            root,
            "--only",
            "key",
            "--only",
            "config.valid",
            "-o",
            "json",
            home=tmp_path,
        )
        assert [r["id"] for r in outcome.data["results"]] == [
            "config.valid",
            "key.strength",
            "key.not-in-argv",
        ]

    def test_a_skip_alone_proves_nothing(self, root: Path, tmp_path: Path) -> None:
        outcome = optictl("check", "--root", root, "--only", "bind", home=tmp_path)
        assert outcome.code == 1
        assert "nothing listens on port" in outcome.out
        assert outcome.out.splitlines()[-2:] == ["Nothing was checked", "(1 skip)"]

    def test_what_was_not_asked_for_is_told_where_it_is_red(
        self, root: Path, tmp_path: Path
    ) -> None:
        outcome = optictl(
            "check", "--root", root, "--only", "process.guarded", "-o", "json", home=tmp_path
        )
        assert outcome.code == 1
        results = {r["id"]: r for r in assert_envelope(outcome.data, "check", "failed")}
        assert list(results) == ["release.in-force", "health.alive", "process.guarded"]
        assert results["process.guarded"]["status"] == "skip"
        assert (
            results["process.guarded"]["root_cause"]
            == results["health.alive"]["root_cause"]
            == "release.in-force"
        )

    def test_quiet_leaves_out_what_is_good(self, root: Path, tmp_path: Path) -> None:
        outcome = optictl(
            "check", "--root", root, "--quiet", "--only", "config.valid", home=tmp_path
        )
        assert outcome.code == 0
        assert "is valid" not in outcome.out

    def test_explain_runs_none(self, tmp_path: Path) -> None:
        outcome = optictl("check", "--explain", "env.forbidden", home=tmp_path)
        assert outcome.code == 0
        assert outcome.out.startswith("env.forbidden: ")
        assert "Why: OPTILLM_API_KEY" in outcome.out
        wrong = optictl("check", "--explain", "env.forbiden", home=tmp_path)
        assert wrong.code == 2
        assert "did you mean 'env.forbidden'?" in wrong.err

    def test_a_textfile_is_written_whole_and_for_everybody(
        self, root: Path, tmp_path: Path
    ) -> None:
        path = tmp_path / "optillm.prom"
        outcome = optictl(
            "check", "--root", root, "--textfile", path, "--output", "nagios", home=tmp_path
        )
        assert outcome.code == 2
        assert outcome.out.startswith(
            "OPTILLM CRITICAL - optillm-proxy: The service does not answer: "
        )
        assert path.stat().st_mode & 0o777 == 0o644
        metrics = {m.name: m.samples for m in text_string_to_metric_families(path.read_text())}
        assert {s.labels["id"] for s in metrics["optillm_check_status"]} == set(IDS)
        roots = {s.labels["id"] for s in metrics["optillm_check_root_cause"] if s.value}
        assert roots == {"release.in-force", "env.upstream-key", "key.strength"}
        assert [p.name for p in tmp_path.iterdir() if "prom" in p.name] == ["optillm.prom"]

    def test_a_plugin_ends_with_its_state(self, root: Path, tmp_path: Path) -> None:
        """0 to 3; 2 is above."""
        asked = {
            0: (root, "config.valid"),
            1: (tmp_path / "nowhere", "config.valid"),
            3: (root, "bind"),
        }
        ended = together(
            {
                str(code): partial(
                    optictl, "check", "--root", place, "--only", only, "-o", "nagios", home=tmp_path
                )
                for code, (place, only) in asked.items()
            }
        )
        assert {int(code): outcome.code for code, outcome in ended.items()} == {
            code: code for code in asked
        }
        assert [outcome.out.split()[1] for outcome in ended.values()] == [
            "OK",
            "WARNING",
            "UNKNOWN",
        ]

    def test_list_runs_none(self, tmp_path: Path) -> None:
        outcome = optictl("check", "--list", home=tmp_path)
        assert outcome.code == 0
        assert [line.split()[0] for line in outcome.out.splitlines()] == IDS

    def test_a_bad_configuration_is_a_failure_and_stops_nothing(self, tmp_path: Path) -> None:
        root = configured(tmp_path / "root", "listen:\n  port: many\nmodle: x\n")
        outcome = optictl("check", "--root", root, "-o", "json", home=tmp_path)
        results = {r["id"]: r for r in outcome.data["results"]}
        assert list(results) == IDS
        assert results["config.valid"]["status"] == "fail"
        assert "line 2: listen.port" in results["config.valid"]["found"]
        assert "line 3: modle" in results["config.valid"]["found"]
        assert {r["status"] for r in results.values()} <= {"pass", "skip", "fail"}


class TestSmoke:
    def test_without_a_model_it_names_some(self, root: Path, tmp_path: Path) -> None:
        outcome = optictl("smoke", "--root", root, home=tmp_path)
        assert outcome.code == 2
        assert "moa-jerry-xl" in outcome.err
        assert "--all" in outcome.err

    @pytest.mark.parametrize("name", ["jerry-xl", "mcts-jerry-xl", "moa-tom"])
    def test_a_model_that_is_not_served(self, name: str, root: Path, tmp_path: Path) -> None:
        outcome = optictl("smoke", name, "--root", root, home=tmp_path)
        assert (outcome.code, outcome.out) == (2, "")
        assert f"{name} is not an enabled strategy on a base model" in outcome.err
        assert "plansearch-jerry-xl" in outcome.err

    def test_without_a_key(self, root: Path, tmp_path: Path) -> None:
        outcome = optictl("smoke", "moa-jerry-xl", "--root", root, home=tmp_path)
        assert (outcome.code, outcome.out) == (1, "")
        assert str(root / "etc/optillm-proxy/proxy_key") in outcome.err
        assert "optictl init" in outcome.err

    def test_where_nothing_runs_it_fails_and_says_so(self, root: Path, tmp_path: Path) -> None:
        optictl("init", "--root", root, home=tmp_path)
        outcome = optictl(
            "smoke", "moa-jerry-xl", "--root", root, "--output", "json", home=tmp_path
        )
        assert outcome.code == 1
        (result,) = assert_envelope(outcome.data, "smoke", "failed")
        assert result.keys() == {*KEYS, "data"}
        assert result["id"] == "moa-jerry-xl"
        assert "refused" in result["found"]
        assert "Errno" not in result["found"]
        assert result["data"].keys() == SMOKE_DATA


class TestRun:
    def test_where_nothing_is_installed(self, root: Path, tmp_path: Path) -> None:
        outcome = optictl("run", "--root", root, home=tmp_path)
        assert (outcome.code, outcome.out) == (1, "")
        assert f"no release is active at {root}/opt/optillm-proxy/current" in outcome.err
        assert f"optictl install --root {root}" in outcome.err
