"""Write templates/locks/*.txt: the hash-locked closure of every profile.

    uv run scripts/lock.py            # after an edit of the pins in pyproject.toml

`proxy` is exported from uv.lock (dependency group `optillm`), so that there is one truth.
`full`, everything OptiLLM declares, cannot share a resolution that leaves most of it out
and is resolved on its own from the same pins.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ROOT / "templates" / "locks"


def run(*command: str, cwd: Path = ROOT) -> str:
    """The command's standard output; its failure ends the script."""
    return subprocess.run(command, cwd=cwd, check=True, stdout=subprocess.PIPE, text=True).stdout


def pins() -> list[str]:
    """The requirements of the dependency group `optillm`."""
    group = re.search(r"^optillm = \[(.*)\]$", (ROOT / "pyproject.toml").read_text(), re.M)
    if group is None:
        sys.exit("pyproject.toml: the dependency group optillm must stand on one line")
    return re.findall(r'"([^"]+)"', group.group(1))


def version() -> str:
    """The pinned OptiLLM version."""
    for requirement in pins():
        if match := re.fullmatch(r"optillm==(.+)", requirement):
            return match.group(1)
    sys.exit("pyproject.toml: the dependency group optillm pins no optillm==VERSION")


def main() -> None:
    """Lock, export, resolve, write."""
    run("uv", "lock")
    proxy = run(
        "uv", "export", "--frozen", "--only-group", "optillm", "--no-emit-project", "--no-annotate", "--no-header",
        "--format", "requirements-txt",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as empty:
        source = Path(empty) / "full.in"
        source.write_text("\n".join(pins()) + "\n")
        full = run(
            "uv", "pip", "compile", "--no-config", "--universal", "--python-version", "3.10", "--generate-hashes",
            "--no-annotate", "--no-header", "--no-emit-index-url", "--no-emit-find-links", "--quiet", str(source),
            cwd=Path(empty),
        )  # fmt: skip
    for profile, text in (("proxy", proxy), ("full", full)):
        if "://" in text:
            sys.exit(f"{profile}: the lock names an address; it must be free of hosts")
        target = LOCKS / f"optillm-{version()}-{profile}.txt"
        target.write_text(f"# optillm {version()}, profile {profile}; written by scripts/lock.py\n{text}")
        print(f"{target.relative_to(ROOT)}: {len(re.findall(r'^[a-z0-9]', text, re.M))} packages")


if __name__ == "__main__":
    main()
