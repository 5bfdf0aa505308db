"""install before it acts: the plan and the question. tests/integration/install/ has the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.cli.helpers import assert_envelope, configured, in_terminal, optictl, tree


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return configured(tmp_path / "root")


class TestDryRun:
    def test_it_changes_nothing(self, root: Path, tmp_path: Path) -> None:
        before = tree(tmp_path)
        outcome = optictl("install", "--dry-run", "--root", root, home=tmp_path)
        assert outcome.code == 0
        assert tree(tmp_path) == before

    def test_it_does_not_even_make_the_root(self, tmp_path: Path) -> None:
        assert optictl("install", "--dry-run", "--root", "nothing", home=tmp_path).code == 0
        assert list(tmp_path.iterdir()) == []

    def test_it_shows_each_step_with_its_reason_and_diff(self, root: Path, tmp_path: Path) -> None:
        shown = optictl("install", "--dry-run", "--diff", "full", "--root", root, home=tmp_path).out
        notes, _, steps = shown.partition("\n\n")
        assert notes.startswith("note    OPENAI_API_KEY is not set in ")
        lines = steps.splitlines()
        assert lines[0].startswith("build   0.3.12-")
        assert any(line.startswith("switch  0.3.12-") for line in lines)
        # the view for people comes last, then the count
        assert lines[-3].startswith("create ")
        assert lines[-3].endswith("/.optillm (it is missing)")
        assert lines[-1] == "Plan: 10 to add, 1 to run."
        assert "this release is not on this machine yet" in lines[0]
        assert "+Restart=always" in lines
        assert f"create  {root}/etc/systemd/system/optillm-proxy.service (it is missing)" in lines

    def test_it_shows_no_secret(self, root: Path, tmp_path: Path) -> None:
        for output in ("text", "json"):
            shown = optictl(
                "install", "--dry-run", "--root", root, "--output", output, home=tmp_path
            ).out
            assert "proxy_key" in shown
            assert "(secret, not shown)" in shown
            assert "optillm-proxy-key" not in shown
            assert "OPENAI_API_KEY=" not in shown.replace("OPENAI_API_KEY=<a key of LiteLLM>", "")

    def test_json(self, root: Path, tmp_path: Path) -> None:
        outcome = optictl("install", "--dry-run", "--root", root, "--output", "json", home=tmp_path)
        assert outcome.code == 0
        results = assert_envelope(outcome.data, "install", "ok")
        assert [r["action"] for r in results] == ["build", *["create"] * 8, "switch", "create"]
        assert all(r.keys() == {"action", "target", "reason", "diff"} for r in results)

    def test_an_edited_file_is_shown_as_a_diff(self, root: Path, tmp_path: Path) -> None:
        units = root / "etc/systemd/system"
        units.mkdir(parents=True)
        (units / "optillm-proxy.socket").write_text("[Socket]\nListenStream=0.0.0.0:4020\n")
        shown = optictl("install", "--dry-run", "--root", root, home=tmp_path).out
        assert "-ListenStream=0.0.0.0:4020" in shown

    def test_the_operators_files_are_left_out_of_it(self, root: Path, tmp_path: Path) -> None:
        optictl("init", "--root", root, home=tmp_path)
        shown = optictl("install", "--dry-run", "--root", root, home=tmp_path).out
        steps = [
            line.split()[:2]
            for line in shown.splitlines()
            if line.startswith(("create ", "replace ", "mode "))
        ]
        assert len(steps) == 7
        assert not [
            target for _, target in steps if Path(target).is_relative_to(root / "etc/optillm-proxy")
        ]


class TestTheQuestion:
    def test_without_a_terminal_it_needs_yes(self, root: Path, tmp_path: Path) -> None:
        before = tree(tmp_path)
        outcome = optictl("install", "--root", root, home=tmp_path)
        assert outcome.code == 1
        assert "--yes" in outcome.err
        assert "--dry-run" in outcome.err
        assert tree(tmp_path) == before

    def test_json_without_a_terminal_needs_yes_too(self, root: Path, tmp_path: Path) -> None:
        outcome = optictl("install", "--root", root, "--output", "json", home=tmp_path)
        assert outcome.code == 1
        assert "--yes" in outcome.err

    @pytest.mark.parametrize(
        "typed", ["n\n", "\n", "\x03", "\x04"], ids=["no", "enter", "Ctrl-C", "Ctrl-D"]
    )
    def test_anything_but_yes_changes_nothing(self, typed: str, root: Path, tmp_path: Path) -> None:
        before = tree(tmp_path)
        outcome = in_terminal(
            "install",
            "--root",
            root,
            home=tmp_path,
            columns=100,
            typed=typed,
            prompt="Apply these changes?",
        )
        assert "Apply these changes?" in outcome.out
        assert outcome.code in (1, 130)
        assert "Traceback" not in outcome.out
        assert tree(tmp_path) == before


def test_a_version_without_a_lock_names_those_there_are(tmp_path: Path) -> None:
    root = configured(tmp_path / "root", "optillm: {version: 0.3.99}\n")
    outcome = optictl("install", "--dry-run", "--root", root, home=tmp_path)
    assert (outcome.code, outcome.out) == (1, "")
    assert "0.3.99" in outcome.err
    assert "0.3.12" in outcome.err
