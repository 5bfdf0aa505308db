"""The packages of a lock, and the wheels that a host needs. Pure.

A lock covers every platform and Python. A wheelhouse is for one platform and one Python.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from packaging.markers import Marker
from packaging.requirements import Requirement

#: The newest glibc that a wheel of the shipped locks needs (z3-solver on aarch64). Hosts with a
#: newer glibc share a wheelhouse.
_ENOUGH = (2, 34)
#: glibc -> the older name of its platform tag. Source: PEP 600.
_OLD_NAMES = {(2, 17): "manylinux2014", (2, 12): "manylinux2010", (2, 5): "manylinux1"}


@dataclass(frozen=True, order=True)
class Target:
    """The platform of a host: architecture, minor version of CPython, version of glibc."""

    architecture: str
    python: tuple[int, int]
    glibc: tuple[int, int]

    @property
    def name(self) -> str:
        """The name of the wheelhouse, for example x86_64-cp311-glibc2.28."""
        python, glibc = "".join(map(str, self.python)), ".".join(map(str, self.glibc))
        return f"{self.architecture}-cp{python}-glibc{glibc}"

    @property
    def platforms(self) -> list[str]:
        """The platform tags for `pip download --platform`, the best first."""
        tags = []
        for minor in range(self.glibc[1], 4, -1):
            tags.append(f"manylinux_2_{minor}_{self.architecture}")
            if old := _OLD_NAMES.get((2, minor)):
                tags.append(f"{old}_{self.architecture}")
        return [*tags, f"linux_{self.architecture}"]

    def environment(self) -> dict[str, str]:
        """The variables for the markers of a lock (PEP 508)."""
        version = f"{self.python[0]}.{self.python[1]}"
        return {
            "implementation_name": "cpython",
            "implementation_version": f"{version}.0",
            "os_name": "posix",
            "platform_machine": self.architecture,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": f"{version}.0",
            "python_version": version,
            "sys_platform": "linux",
        }


def target(architecture: str, python: Sequence[int], glibc: Sequence[int]) -> Target:
    """The target of a host. The facts are those that the module optillm_host_info returns."""
    return Target(architecture, (python[0], python[1]), min((glibc[0], glibc[1]), _ENOUGH))


@dataclass(frozen=True)
class Pin:
    """A package of a lock, and the allowed SHA-256 digests of its wheels in hex."""

    name: str
    version: str
    digests: frozenset[str]

    @property
    def line(self) -> str:
        """The line of a requirements file, without a marker."""
        return " ".join(
            [
                f"{self.name}=={self.version}",
                *(f"--hash=sha256:{digest}" for digest in sorted(self.digests)),
            ]
        )


def entries(lock: str) -> Iterator[tuple[Pin, Marker | None]]:
    """Every package of a lock, and the marker that says where it is needed (None: everywhere).

    Raises:
        ValueError: a line of the lock is not a pinned requirement with hashes.
    """
    for line in re.sub(r"\\\n", " ", lock).splitlines():
        text = line.partition("#")[0].strip()
        if not text:
            continue
        words, *hashes = re.split(r"\s+--hash=", text)
        requirement = Requirement(words)
        pin = re.fullmatch(r"==([^*,\s]+)", str(requirement.specifier))
        digests = frozenset(
            h.strip().removeprefix("sha256:") for h in hashes if h.startswith("sha256:")
        )
        if pin is None or not digests:
            raise ValueError(f"not a pinned requirement with hashes: {words}")
        yield Pin(requirement.name, pin.group(1), digests), requirement.marker


def pins(lock: str, of: Target) -> list[Pin]:
    """The packages of a lock that a target needs.

    Raises:
        ValueError: a line of the lock is not a pinned requirement with hashes.
    """
    environment = of.environment()
    return [pin for pin, marker in entries(lock) if marker is None or marker.evaluate(environment)]
