"""The wheel carries everything that a checkout has: templates, locks, the guard."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from uv import find_uv_bin

ROOT = Path(__file__).resolve().parents[3]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, unpacked."""
    out = tmp_path_factory.mktemp("wheel")
    command = [find_uv_bin(), "build", "--wheel", "--quiet", "--out-dir", str(out), str(ROOT)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    (built,) = out.glob("*.whl")
    assert built.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(built) as archive:
        archive.extractall(out / "unpacked")
    return out / "unpacked"


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
