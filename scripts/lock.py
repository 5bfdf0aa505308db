"""Write templates/locks/: lock files with hashes for every profile and for optictl.

    uv run scripts/lock.py            # after a change of the pins in pyproject.toml
    uv run scripts/lock.py --upgrade  # newer packages, as far as the pins allow

It also writes the inputs of `upgrade --resolve`. `proxy` is exported from uv.lock (dependency group
`optillm`), which is the single source. `full` has everything that OptiLLM declares; uv.lock
excludes most of it, so `full` is resolved separately from the same pins. The LATER versions of
OptiLLM are resolved as by `optictl upgrade --resolve`: same pins, locked versions kept. The
dependency group `model` becomes model.txt.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from optictl.host import uv

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ROOT / "templates" / "locks"
#: The later versions that locks are shipped for.
LATER = ("0.3.13", "0.3.22", "0.4.0")


def run(*command: str, cwd: Path = ROOT) -> str:
    """The standard output of a command; a failure ends the script."""
    return subprocess.run(command, cwd=cwd, check=True, stdout=subprocess.PIPE, text=True).stdout


def pins() -> list[str]:
    """The requirements of the dependency group `optillm`."""
    group = re.search(r"^optillm = \[(.*)\]$", (ROOT / "pyproject.toml").read_text(), re.M)
    if group is None:
        sys.exit("pyproject.toml: the dependency group optillm must be on one line")
    return re.findall(r'"([^"]+)"', group.group(1))


def excludes() -> list[str]:
    """The packages that a proxy does not need: tool.uv.exclude-dependencies."""
    names = re.search(
        r"^exclude-dependencies = \[(.*?)^\]$", (ROOT / "pyproject.toml").read_text(), re.M | re.S
    )
    if names is None:
        sys.exit("pyproject.toml: tool.uv has no exclude-dependencies")
    return re.findall(r'"([^"]+)"', names.group(1))


def version() -> str:
    """The pinned OptiLLM version."""
    for requirement in pins():
        if match := re.fullmatch(r"optillm==(.+)", requirement):
            return match.group(1)
    sys.exit("pyproject.toml: the dependency group optillm pins no optillm==VERSION")


def main(upgrade: bool) -> None:
    """Lock, export, resolve, write."""
    run("uv", "lock", *(["--upgrade"] if upgrade else []))
    proxy = export("--only-group", "optillm")
    full_lock = LOCKS / f"optillm-{version()}-full.txt"
    full = uv.resolve(
        "".join(f"{pin}\n" for pin in pins()),
        "",
        full_lock.read_text() if full_lock.exists() and not upgrade else "",
    )
    others = "".join(f"{pin}\n" for pin in pins() if not pin.startswith("optillm=="))
    left_out = "".join(f"{name}\n" for name in excludes())
    (LOCKS / "proxy.in").write_text(others)
    (LOCKS / "proxy.exclude").write_text(left_out)
    for later in LATER:
        write(later, "proxy", uv.resolve(f"optillm=={later}\n{others}", left_out, proxy))
    write(version(), "proxy", proxy)
    write(version(), "full", full)
    # the hosts of a fleet install optictl with this lock file
    write_lock(LOCKS / "optictl.txt", "what optictl depends on", export("--no-dev"))
    real_model = export("--only-group", "model")
    write_lock(LOCKS / "model.txt", "the model of optictl demo --model", real_model)


def export(*what: str) -> str:
    """A part of uv.lock as a requirements file with hashes."""
    return run(
        "uv",
        "export",
        "--frozen",
        *what,
        "--no-emit-project",
        "--no-annotate",
        "--no-header",
        "--format",
        "requirements-txt",
    )


def write(of: str, profile: str, text: str) -> None:
    """Write the lock file of one version and profile."""
    write_lock(LOCKS / f"optillm-{of}-{profile}.txt", f"optillm {of}, profile {profile}", text)


def write_lock(target: Path, title: str, text: str) -> None:
    """Write one lock file, with a title line."""
    if "://" in text:
        sys.exit(f"{target.name}: the lock names an address; it must be free of hosts")
    target.write_text(f"# {title}; written by scripts/lock.py\n{text}")
    print(f"{target.relative_to(ROOT)}: {len(re.findall(r'^[a-z0-9]', text, re.M))} packages")


if __name__ == "__main__":
    main("--upgrade" in sys.argv[1:])
