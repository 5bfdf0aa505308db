"""Locks for versions of OptiLLM without a shipped one: an operator's own, and one that is made."""

from __future__ import annotations

from pathlib import Path

import pytest

from optictl.deployment import paths
from optictl.deployment.config import Config
from optictl.errors import OptictlError
from optictl.operations import resolve

A = "openai==3.54.0 \\\n    --hash=sha256:aa\nflask==3.1.3\ngone==1 ; python_version < '3.11'\n"
B = "openai==3.60.1 \\\n    --hash=sha256:bb\nflask==3.1.3\nnew.one==2\n"


def test_the_difference_of_two_closures() -> None:
    assert resolve.closure_difference(A, B) == [
        "gone 1 is gone",
        "new.one 2 is new",
        "openai 3.54.0 -> 3.60.1",
    ]
    assert resolve.closure_difference(A, A) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("optillm==0.3.13\n", "is no hash lock of OptiLLM 0.3.13"),
        ("optillm==0.3.12 --hash=sha256:aa\n", "is no hash lock of OptiLLM 0.3.13"),
        ("\x00\xff", "is no hash lock"),
    ],
)
def test_a_file_that_is_no_lock_of_the_version(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "lock.txt"
    file.write_text(text)
    with pytest.raises(OptictlError, match=words) as refused:
        resolve.own_lock(Config(), paths.system(tmp_path), "0.3.13", file)
    assert "--resolve" in refused.value.remedy


@pytest.mark.slow
def test_a_lock_is_made_and_what_changes_is_said(tmp_path: Path) -> None:
    """From the same pins, by the real resolver; nothing is written to the deployment."""
    places = paths.system(tmp_path / "root")
    found = resolve.resolve(Config(), places, "0.3.13", lambda _: None)
    assert "optillm 0.3.12 -> 0.3.13" in found.closure
    assert "--hash=sha256:" in found.text
    assert found.unknown == []
    assert found.path == places.locks / "optillm-0.3.13-proxy.txt"
    assert not (tmp_path / "root").exists()
