"""The tree of exceptions: its codes, its page, and what becomes of other libraries' exceptions."""

from __future__ import annotations

import ast
import errno
import inspect
import os
import re
import runpy
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import optictl
from optictl import errors
from optictl.checks import engine
from optictl.checks.engine import Finding
from optictl.deployment import paths
from optictl.deployment.config import Config
from optictl.errors import OptictlError
from optictl.facts import units
from optictl.facts.deployment import Deployment
from optictl.operations import resolve
from optictl.releases import locks, store
from optictl.requests import smoke

SCRIPT = Path(__file__).resolve().parents[2] / "scripts/error_codes_page.py"


def test_the_page_is_current() -> None:
    """After a change of an error: python -m scripts.docs"""
    script = runpy.run_path(str(SCRIPT))
    assert script["PAGE"].read_text(encoding="utf-8") == script["page"]()


def test_each_class_has_a_code_of_its_own_and_says_what_fixes_it() -> None:
    every = errors.classes()
    assert len(every) > 20
    assert len({error.code for error in every}) == len(every)
    for error in every:
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", error.code), error
        assert "\n\nFix: " in (inspect.getdoc(error) or ""), error


def test_the_docstring_of_the_module_shows_the_tree() -> None:
    words = re.findall(r"^ +(\w+) +([a-z-]+)", errors.__doc__ or "", re.MULTILINE)
    assert words == [(error.__name__, error.code) for error in errors.classes()]


def test_all_of_the_tree_is_in_one_module() -> None:
    assert {error.__module__ for error in errors.classes()} == {"optictl.errors"}


def test_no_code_raises_the_base_class() -> None:
    """Each failure has a class with a code that programs may compare."""
    package = Path(optictl.__file__).parent
    uses = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "OptictlError"
    }
    # a failure in other words keeps its code; a transaction raises `RolledBack` in its place
    assert uses <= {"errors.py", "operations/transaction.py"}


PRIVATE = paths.system(Path("/nonexistent"))


@pytest.mark.parametrize(
    ("act", "code", "remedy"),
    [
        (
            lambda: locks.lock_file("9.9.9", "proxy", PRIVATE),
            "no-lock",
            "upgrade 9.9.9 --resolve",
        ),
        (
            lambda: locks.required_release(Config(plugins=("x.py",)), PRIVATE),
            "invalid-file",
            "correct plugins",
        ),
        (
            lambda: resolve.own_lock(Config(), PRIVATE, "0.3.13", Path("/dev/null")),
            "invalid-file",
            "--resolve",
        ),
        (lambda: units.manager(PRIVATE), "no-systemd", "optictl run --root /nonexistent"),
        (lambda: store.require_active(PRIVATE), "not-installed", "optictl install --root"),
        (lambda: Deployment(PRIVATE).release, "not-installed", "optictl install --root"),
        (lambda: smoke.names(Config(), [], False), "usage", "optictl smoke moa-jerry-xl"),
    ],
)
def test_a_failure_has_a_code_and_a_fix(act: Callable[[], object], code: str, remedy: str) -> None:
    with pytest.raises(OptictlError) as caught:
        act()
    assert caught.value.code == code
    assert remedy in caught.value.remedy


def test_a_missing_release_is_one_message_in_errors_and_in_checks() -> None:
    with pytest.raises(errors.NotInstalled) as caught:
        store.require_active(PRIVATE)
    assert caught.value.what == "no release is active at /nonexistent/opt/optillm-proxy/current"

    def active(deployment: Deployment) -> Iterator[Finding]:
        yield Finding(deployment.release.name)

    (result,) = engine.run([engine.check("a.b", "title", "expected")(active)], Deployment(PRIVATE))
    assert result.status == "skip"
    assert result.found == f"{caught.value.what}: run {caught.value.remedy}"


def full(path: str | None = None) -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)


@pytest.mark.parametrize(
    ("raised", "code", "words"),
    [
        (full("/opt/x"), "no-space", "No space left on device: /opt/x"),
        (full(), "no-space", "No space left on device"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "no-space", "Disk quota exceeded"),
        (PermissionError(errno.EACCES, "denied", "/etc/x"), "permission", "/etc/x"),
        (PermissionError(errno.EPERM, "Operation not permitted"), "file", "not permitted"),
        (OSError(errno.EROFS, "Read-only file system", "/opt"), "file", "Read-only"),
        (subprocess.TimeoutExpired(["systemctl", "start", "x"], 60), "timeout", "60 s"),
        (ModuleNotFoundError("No module", name="ansible_runner"), "missing-extra", "fleet"),
        (ModuleNotFoundError("No module named 'x'", name="x"), "internal", "report it"),
        (KeyboardInterrupt(), "interrupted", "interrupted"),
        (RuntimeError("boom"), "internal", "boom"),
        (RuntimeError(), "internal", "RuntimeError"),
        (OptictlError("as it is"), "failed", "as it is"),
    ],
    ids=repr,
)
def test_whatever_is_raised_becomes_one_of_the_tree(
    raised: BaseException, code: str, words: str
) -> None:
    error = errors.of_exception(raised)
    assert error.code == code
    assert words in error.what
    assert error.as_dict()["code"] == code
    if code not in ("interrupted", "failed"):
        assert error.remedy


def test_more_words_keep_the_code() -> None:
    again = errors.NoSpace("full", "df -h").reworded("the release failed: full")
    assert (again.code, again.remedy, again.what[:11]) == ("no-space", "df -h", "the release")
