"""Make /opt/optictl/venv out of the package's wheels, for the Python that runs this.

The package's postinst runs it. It reads nothing but /opt/optictl and writes nothing else. Where the
environment is up to date, it does nothing.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PLACE = Path("/opt/optictl")
WHEELS = PLACE / "wheels"


def is_current(venv: Path, mark: str) -> bool:
    """Whether an environment was made from this lock by this Python, and starts."""
    try:
        same = (venv / "lock").read_text() == mark
        command = [str(venv / "bin/python"), "-I", "-c", "import optictl"]
        return same and subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def main() -> int:
    """The exit code: 0, or 1 with a message for people."""
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    lock = PLACE / "locks" / f"{version}.txt"
    if not lock.is_file():
        have = ", ".join(sorted(path.stem for path in lock.parent.iterdir()))
        print(f"optictl: this package is for Python {have}; python3 is {version}", file=sys.stderr)
        print("optictl: install a newer package of optictl", file=sys.stderr)
        return 1
    mark = f"{sys.version}\n{hashlib.sha256(lock.read_bytes()).hexdigest()}\n"
    venv, new, old = PLACE / "venv", PLACE / "venv.new", PLACE / "venv.old"
    if is_current(venv, mark):
        return 0
    for path in (new, old):
        shutil.rmtree(path, ignore_errors=True)
    install(new, lock)
    (new / "lock").write_text(mark)
    if venv.exists():
        venv.rename(old)
    new.rename(venv)
    shutil.rmtree(old, ignore_errors=True)
    return 0


def install(venv: Path, lock: Path) -> None:
    """Make an environment with the packages of a lock, every hash checked, without a network."""
    with tempfile.TemporaryDirectory() as scratch:
        uv = unpacked_uv(Path(scratch))
        variables = {"PATH": os.defpath, "HOME": scratch, "UV_CACHE_DIR": f"{scratch}/cache"}
        common = ["--quiet", "--no-config", "--offline"]
        made = [uv, "venv", *common, "--relocatable", "--python", sys.executable, str(venv)]
        subprocess.run(made, check=True, env=variables, cwd="/")
        command = [uv, "pip", "install", *common, "--no-index", f"--find-links={WHEELS}"]
        command += ["--no-deps", "--require-hashes", "--no-build", "--compile-bytecode"]
        command += [f"--python={venv / 'bin/python'}", f"--requirements={lock}"]
        subprocess.run(command, check=True, env=variables, cwd="/")
    # uv lets every user lock an environment
    (venv / ".lock").unlink(missing_ok=True)


def unpacked_uv(directory: Path) -> str:
    """The program uv out of its wheel."""
    (wheel,) = WHEELS.glob("uv-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".data/scripts/uv"))
        program = directory / "uv"
        program.write_bytes(archive.read(name))
    program.chmod(0o755)
    return str(program)


if __name__ == "__main__":
    sys.exit(main())
