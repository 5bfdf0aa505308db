"""The packages are complete: the wheel has templates, locks and the guard, the sdist all files."""

from __future__ import annotations

import email
import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from pathlib import Path

import pytest
from uv import find_uv_bin

import optictl
from hatch_build import absolute_links
from optictl.host.uv_settings import parse_toml
from testing.support import ROOT

pytestmark = pytest.mark.slow
PROJECT = parse_toml((ROOT / "pyproject.toml").read_text())["project"]


def built(source: Path, out: Path, kind: str) -> Path:
    """Build a package of a source tree: the kind is wheel or sdist."""
    command = [find_uv_bin(), "build", f"--{kind}", "--quiet", "--out-dir", str(out), str(source)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    (package,) = (*out.glob("*.whl"), *out.glob("*.tar.gz"))
    return package


@pytest.fixture(scope="module")
def wheel_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    wheel = built(ROOT, tmp_path_factory.mktemp("wheel"), "wheel")
    assert wheel.name.endswith("-py3-none-any.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(wheel_file: Path) -> Path:
    """The wheel of this checkout, unpacked."""
    with zipfile.ZipFile(wheel_file) as archive:
        archive.extractall(wheel_file.parent / "unpacked")
    return wheel_file.parent / "unpacked"


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist of this checkout, unpacked."""
    out = tmp_path_factory.mktemp("sdist")
    with tarfile.open(built(ROOT, out, "sdist")) as archive:
        archive.extractall(out, filter="data")
    return out / f"optictl-{optictl.__version__}"


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    """The metadata of the wheel; its payload is the description."""
    (information,) = wheel.glob("*.dist-info")
    return email.message_from_string((information / "METADATA").read_text())


def tree(directory: Path) -> dict[str, bytes]:
    """path below the directory -> content, of all that a wheel should carry."""
    found = (p for p in directory.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    return {str(p.relative_to(directory)): p.read_bytes() for p in found}


def test_every_template_and_lock_is_in_it(wheel: Path) -> None:
    packed = tree(wheel / "optictl/templates")
    assert packed == tree(ROOT / "templates")
    assert "optillm-proxy.service.j2" in packed
    assert "locks/optillm-0.3.12-proxy.txt" in packed


def test_all_code_is_in_it_the_guard_too(wheel: Path) -> None:
    packed = tree(wheel / "optictl")
    source = tree(ROOT / "optictl")
    assert {name: packed.get(name) for name in source} == source
    assert "guard/__main__.py" in packed
    assert packed.keys() - source.keys() - {
        f"templates/{name}" for name in tree(ROOT / "templates")
    } <= {"commit.txt"}


def test_nothing_else_is_in_it(wheel: Path) -> None:
    assert {p.name.split("-")[0] for p in wheel.iterdir()} == {"optictl"}
    (information,) = wheel.glob("*.dist-info")
    assert (information / "licenses/LICENSE").is_file()
    assert "optictl = optictl.cli:main" in (information / "entry_points.txt").read_text()


def test_the_man_pages_are_installed(wheel: Path) -> None:
    (data,) = wheel.glob("*.data")
    assert tree(data / "data/share/man") == {
        f"man{page.suffix[1:]}/{page.name}": page.read_bytes() for page in (ROOT / "man").iterdir()
    }


def test_what_is_installed_renders_from_its_own_templates(wheel: Path, tmp_path: Path) -> None:
    """Run from the wheel's files, away from the checkout: the same bytes."""

    def unit(package: Path) -> str:
        program = (
            "import sys; from optictl.deployment import render; "
            "print(render.template_directory(), file=sys.stderr);"
            "from optictl.cli import main; sys.argv = ['optictl', 'render-unit']; main()"
        )
        result = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={
                "PYTHONPATH": str(package),
                "HOME": str(tmp_path),
                "PATH": os.environ["PATH"],
                "OPTICTL_ROOT": str(tmp_path),
            },
        )
        assert result.returncode == 0, result.stderr
        assert str(package) in result.stderr
        return result.stdout

    assert unit(wheel) == unit(ROOT)


# the sdist


#: What tools leave in a checkout, if git cannot tell it apart.
LEFT_BY_TOOLS = {
    *("dist", ".git", ".venv", ".tools"),
    *(".hypothesis", ".pytest_cache", ".mypy_cache", ".ruff_cache"),
}


def git(*words: str) -> str:
    """What git says of this checkout; "" where there is no git or no repository."""
    try:
        asked = subprocess.run(
            ["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return asked.stdout


def tracked() -> set[str]:
    """The files of the repository; without git, those that no tool left there."""
    listed = git("ls-files", "-z", "--cached", "--others", "--exclude-standard")
    names = set(listed.split("\0")) - {""} or {
        name
        for name in tree(ROOT)
        if not LEFT_BY_TOOLS & set(Path(name).parts) and name != "PKG-INFO"
    }
    return {name for name in names if (ROOT / name).is_file()}


def test_the_sdist_has_what_git_has(sdist: Path) -> None:
    packed = tree(sdist)
    assert packed.keys() - {"PKG-INFO", "optictl/commit.txt"} == tracked()
    assert {name for name in tracked() if packed[name] != (ROOT / name).read_bytes()} == set()


def test_the_sdist_builds_the_same_wheel(sdist: Path, wheel_file: Path, tmp_path: Path) -> None:
    again = built(sdist, tmp_path, "wheel")
    assert again.name == wheel_file.name
    assert again.read_bytes() == wheel_file.read_bytes()


# the metadata


def test_the_commit_is_packed(wheel: Path) -> None:
    file = wheel / "optictl/commit.txt"
    packed = file.read_text().strip().removesuffix("-dirty") if file.exists() else ""
    assert packed == git("rev-parse", "--short=12", "HEAD").strip()


def test_the_package_says_what_it_is(metadata: Message) -> None:
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert set(metadata.get_all("Project-URL") or []) == {
        f"{name}, {url}" for name, url in PROJECT["urls"].items()
    }
    classifiers = metadata.get_all("Classifier") or []
    pythons = [c.rpartition(" ")[2] for c in classifiers if "Python :: 3." in c]
    assert pythons == [f"3.{minor}" for minor in range(10, 15)]
    assert metadata["Requires-Python"] == "<3.15,>=3.10"


def test_the_links_of_the_description_work_outside_a_checkout(metadata: Message) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", str(metadata.get_payload()))
    assert len(targets) > 20
    assert [target for target in targets if not target.startswith("https://")] == []
    own = f"{PROJECT['urls']['Source']}/"
    parts = [t.removeprefix(own).split("/", 2) for t in targets if t.startswith(own)]
    assert {(kind, tag) for kind, tag, _ in parts} == {
        ("blob", f"v{optictl.__version__}"),
        ("raw", f"v{optictl.__version__}"),
    }
    assert [p for _, _, p in parts if not (ROOT / p.partition("#")[0]).is_file()] == []


def test_a_link_stays_that_leads_elsewhere_or_to_a_heading() -> None:
    text = "[a](https://host/x) [b](#limits) [c](docs/a.md#b) ![d](docs/d.svg)"
    assert absolute_links(text, "https://host/own", "v1") == (
        "[a](https://host/x) [b](#limits) [c](https://host/own/blob/v1/docs/a.md#b)"
        " ![d](https://host/own/raw/v1/docs/d.svg)"
    )


def test_one_address_stands_for_the_repository() -> None:
    """Who publishes optictl changes it in every file at once; CONTRIBUTING.md lists the files."""
    source = PROJECT["urls"]["Source"]
    naming = {
        name
        for name in tracked()
        if name.endswith((".toml", ".yml", ".yaml", ".md", ".py", ".j2"))
        and "tests" not in Path(name).parts
        and source in (ROOT / name).read_text(encoding="utf-8")
    }
    release = (ROOT / "CONTRIBUTING.md").read_text().partition("\n## Release\n")[2]
    assert naming - {"CONTRIBUTING.md"} == set(re.findall(r"^- `([^`]+)`", release, re.M))


# the collection


def test_galaxy_takes_the_collection(tmp_path: Path) -> None:
    """What `ansible-galaxy collection build` makes, for a Galaxy server."""
    source = ROOT / "optictl/collections/ansible_collections/optictl/optillm"
    program = Path(sys.executable).with_name("ansible-galaxy")
    command = [program, "collection", "build", source, "--output-path", tmp_path]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "HOME": str(tmp_path)}
    )
    assert (done.returncode, "WARNING" in done.stderr) == (0, False), done.stderr
    (archive,) = tmp_path.glob("*.tar.gz")
    assert archive.name == f"optictl-optillm-{optictl.__version__}.tar.gz"
    with tarfile.open(archive) as packed:
        names = {member.name for member in packed if member.isfile()}
        (manifest,) = (packed.extractfile(name) for name in names if name == "MANIFEST.json")
        assert manifest is not None
        about = json.load(manifest)["collection_info"]
    urls = PROJECT["urls"]
    assert (about["repository"], about["issues"]) == (urls["Source"], urls["Issues"])
    assert about["license"] == ["Apache-2.0"]
    tracked_here = {name for name in tracked() if (ROOT / name).is_relative_to(source)}
    relative = {str((ROOT / name).relative_to(source)) for name in tracked_here} - {"galaxy.yml"}
    assert names - {"MANIFEST.json", "FILES.json"} == relative
