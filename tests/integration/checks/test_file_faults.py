"""Single faults in files: exactly the check for the fault fails, and says what and where."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from optictl.host import files
from optictl.releases import integrity
from optictl.results import roots, summary
from testing.deployments import InstalledDeployment
from testing.support import open_directory

pytestmark = pytest.mark.slow

Break = Callable[[InstalledDeployment], object]


def _append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


FAULTS: list[tuple[str, str, Break]] = [
    ("config.valid", "not valid YAML", lambda d: d.paths.config.write_text("listen: [")),
    ("config.valid", "127.0.0.1", lambda d: d.paths.config.write_text("listen: {host: 0.0.0.0}\n")),
    (
        "config.valid",
        "'z3' runs Python code that the model wrote: it needs allow_code_execution: true",
        lambda d: d.paths.config.write_text("strategies: [moa, z3]\n"),
    ),
    (
        "env.readable",
        "line 2 (HTTP_PROXY)",
        lambda d: _append(d.paths.env, "export HTTP_PROXY=x\n"),
    ),
    (
        "env.readable",
        "line 1 (OPENAI_API_KEY)",
        lambda d: d.paths.env.write_bytes("OPENAI_API_KEY=\u00e9".encode("latin-1")),
    ),
    ("env.upstream-key", "does not exist", lambda d: d.paths.env.unlink()),
    (
        "key.strength",
        "sk-",
        lambda d: d.paths.proxy_key.write_text("sk-0123456789abcdefghijklmnopq\n"),
    ),
    ("key.strength", "shorter", lambda d: d.paths.proxy_key.write_text("short\n")),
    ("key.strength", "does not exist", lambda d: d.paths.proxy_key.unlink()),
    ("key.strength", "different", lambda d: d.paths.proxy_key.write_text("a" * 40)),
    ("files.ownership", "0640", lambda d: d.paths.proxy_key.chmod(0o640)),
    ("proxy-config.litellm-only", "missing", lambda d: d.paths.proxy_config.unlink()),
]


@pytest.mark.parametrize(
    ("id", "words", "fault"), FAULTS, ids=[f"{id}: {words}" for id, words, _ in FAULTS]
)
def test_the_fault_is_found(
    deployment: InstalledDeployment, id: str, words: str, fault: Break
) -> None:
    assert deployment.check(id)[id].status == "pass"
    fault(deployment)
    result = deployment.check(id)[id]
    assert result.status == "fail"
    assert words in result.found
    assert result.remedy


def test_strategies_that_run_code_are_named(deployment: InstalledDeployment) -> None:
    id = "config.code-execution"
    assert deployment.check(id)[id].status == "pass"
    permitted = "strategies: [moa, z3, coc]\nallow_code_execution: true\n"
    deployment.paths.config.write_text(permitted)
    result = deployment.check(id)[id]
    assert result.status == "warn"
    assert "z3 runs Python code" in result.found
    assert "coc runs Python code" in result.found
    assert "moa" not in result.found
    assert str(deployment.paths.config) in result.remedy
    deployment.paths.config.write_text("strategies: [moa]\nallow_code_execution: true\n")
    assert deployment.check(id)[id].status == "pass"
    deployment.paths.config.write_text(permitted.replace("true", "false"))
    assert deployment.check(id)[id].root_cause == "config.valid"


def test_no_result_quotes_a_secret(deployment: InstalledDeployment) -> None:
    secret = "sk-a-secret-that-must-not-be-seen-0123456789"
    deployment.paths.proxy_key.write_text(secret)
    deployment.paths.env.write_text(f"OPENAI_API_KEY={secret}\nOPTILLM_API_KEY={secret}\n")
    results = deployment.check("env", "key", "files", "config")
    assert {r.status for r in results.values()} > {"fail"}
    assert secret not in str([r.as_dict() for r in results.values()])


@pytest.fixture(scope="module")
def spare(installed: InstalledDeployment) -> Iterator[Path]:
    """A copy of the release for tests to break: to copy and to read it takes seconds of CPU."""
    copy = installed.release.with_name(f"{installed.release.name}-spare")
    shutil.copytree(installed.release, copy, symlinks=True)
    files.write(
        copy / integrity.STAMPS, json.dumps(integrity.verified_stamps(copy / ".venv")), 0o644
    )
    yield copy
    files.remove(copy)


@contextmanager
def _in_force(deployment: InstalledDeployment, spare: Path, touched: Path) -> Iterator[None]:
    """`current` leads to the copy meanwhile; a test's change of this path in it is undone."""
    good = deployment.release
    with open_directory() as kept:
        was_there = touched.exists()
        if touched.is_dir():
            shutil.copytree(touched, kept / "it", symlinks=True)
        elif was_there:
            shutil.copy2(touched, kept / "it", follow_symlinks=False)
        files.replace_link(deployment.paths.current, Path("releases") / spare.name)
        try:
            yield
        finally:
            files.replace_link(deployment.paths.current, Path("releases") / good.name)
            files.remove(touched)
            if was_there:
                shutil.move(kept / "it", touched)


def _site_packages(release: Path) -> Path:
    return next((release / ".venv/lib").glob("python3.*")) / "site-packages"


def _add_distribution(directory: Path) -> None:
    directory.mkdir()
    (directory / "RECORD").write_text("")


#: What is said of it, what is touched of a release, how.
RELEASE_FAULTS: list[tuple[str, Callable[[Path], Path], Callable[[Path], object]]] = [
    (
        "optillm/moa.py",
        lambda r: _site_packages(r) / "optillm/moa.py",
        lambda p: _append(p, "# edited\n"),
    ),
    (
        "flask is missing",
        lambda r: next(_site_packages(r).glob("flask-*.dist-info")),
        shutil.rmtree,
    ),
    ("was added", lambda r: _site_packages(r) / "extra-1.0.dist-info", _add_distribution),
    (
        "the file list of openai",
        lambda r: next(_site_packages(r).glob("openai-*.dist-info")) / "RECORD",
        lambda p: _append(p, "x,,\n"),
    ),
    ("guard/app.py", lambda r: r / "guard/app.py", lambda p: _append(p, "# edited\n")),
    ("guard/extra.py", lambda r: r / "guard/extra.py", lambda p: p.write_text("")),
]


@pytest.mark.parametrize(
    ("words", "place", "fault"), RELEASE_FAULTS, ids=[words for words, _, _ in RELEASE_FAULTS]
)
def test_a_changed_release_is_found(
    deployment: InstalledDeployment,
    spare: Path,
    words: str,
    place: Callable[[Path], Path],
    fault: Callable[[Path], object],
) -> None:
    touched = place(spare)
    with _in_force(deployment, spare, touched):
        assert deployment.check("release.pinned")["release.pinned"].status == "pass"
        fault(touched)
        result = deployment.check("release.pinned")["release.pinned"]
        assert result.status == "fail"
        assert words in result.found
        # it is built anew beside the broken one
        assert result.remedy == deployment.paths.command("install")


def test_an_edited_optillm_is_refused_and_the_edit_is_the_cause(
    deployment: InstalledDeployment, spare: Path
) -> None:
    server = _site_packages(spare) / "optillm/server.py"
    with _in_force(deployment, spare, server):
        assert deployment.check("release.verified")["release.verified"].found == "verified"
        text = server.read_text()
        server.write_text(text.replace("def parse_args(", "def parse_args(  # edited\n"))
        results = deployment.check("release")
    verified = results["release.verified"]
    assert verified.status == "fail"
    assert "the guard does not know optillm/server.py:parse_args" in verified.found
    assert verified.root_cause == "release.pinned"


def test_a_release_that_cannot_start_is_found(deployment: InstalledDeployment, spare: Path) -> None:
    settings = spare / ".venv/pyvenv.cfg"
    with _in_force(deployment, spare, settings):
        settings.unlink()  # no hash is wrong, and nothing of the closure is found
        result = deployment.check("release.starts")["release.starts"]
    assert result.status == "fail"
    assert "No module named" in result.cause


def test_a_release_that_was_changed_is_not_started(
    deployment: InstalledDeployment, spare: Path
) -> None:
    package = _site_packages(spare) / "math_verify"
    with _in_force(deployment, spare, package):
        shutil.rmtree(package)
        results = deployment.check("release.starts")
    assert results["release.starts"].found == "requires release.pinned, which failed"
    assert "math_verify" in results["release.pinned"].found


def test_an_interpreter_that_is_gone_is_found(deployment: InstalledDeployment, spare: Path) -> None:
    python = spare / ".venv/bin/python"
    with _in_force(deployment, spare, python):
        python.unlink()
        python.symlink_to("/usr/bin/a-python-that-was-uninstalled")
        results = deployment.check("release")
    result = results["release.interpreter"]
    assert result.status == "fail"
    assert "is missing or does not run" in result.found
    # the same release is built beside it
    assert result.remedy == deployment.paths.command("install")
    assert results["release.pinned"].found == "requires release.interpreter, which failed"


def test_a_deployment_that_nobody_finished_is_one_fault(deployment: InstalledDeployment) -> None:
    """Without a release many checks fail; the first line names the release."""
    current = deployment.paths.current
    target = current.readlink()
    deployment.paths.proxy_config.unlink()
    current.unlink()
    try:
        with deployment.standin().running():
            results = list(deployment.check().values())
    finally:
        current.symlink_to(target)
    assert [r.id for r in roots(results)] == ["release.in-force"]
    assert {r.id for r in results if r.failed} >= {
        "release.in-force",
        "proxy-config.litellm-only",
        "health.alive",
    }
    assert summary(results).startswith(
        f"The service does not answer: {current} does not point to a complete release. Fix: "
        "optictl install"
    )


def test_nothing_in_force_is_skipped_by_name(deployment: InstalledDeployment) -> None:
    current = deployment.paths.current
    target = current.readlink()
    current.unlink()
    try:
        results = deployment.check("release.pinned")
    finally:
        current.symlink_to(target)
    assert results["release.pinned"].found == "requires release.in-force, which failed"
    assert "optictl install --root" in results["release.in-force"].remedy
