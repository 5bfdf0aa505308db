"""What a fault is, and the words in which faults are written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from testing.faults.bench import HOME, OPT, SOCKET, UNIT, UNITS, Bench
from testing.support import wait_until

Step = Callable[[Bench], object]

SERVICE_FILE, SOCKET_FILE = f"{UNITS}/{UNIT}", f"{UNITS}/{SOCKET}"
CURRENT = f"{OPT}/current"
SITE_PACKAGES = f"{CURRENT}/.venv/lib/python3.*/site-packages"
PROVIDERS = f"$(readlink -f {HOME}/.optillm)/proxy_config.yaml"


@dataclass(frozen=True)
class Fault:
    """One way to break a deployment.

    `id`: the check that is the root cause. The test then types what that one printed: `typed` where
    only a part of it is a command. `outside` is what it asks a person to do elsewhere, before that;
    `says` is how it asks for it. `after` puts the scenery away.
    """

    family: str
    name: str
    id: str
    breaks: Step
    typed: str | None = None
    outside: Step | None = None
    says: str = ""
    after: Step | None = None
    #: Ways of looking that see it sometimes: it comes and goes.
    unsteady: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """What a table calls it."""
        return f"{self.family}: {self.name}"


def sh(words: str) -> Step:
    return lambda b: b.sh(words)


def put(path: str, text: str, mode: int = 0o600) -> Step:
    return lambda b: b.machine.write(path, text, mode)


def drop_in(*lines: str, unit: str = UNIT, then: str = "true") -> Step:
    """A drop-in of the service (of another unit), read by systemd."""
    section = unit.rpartition(".")[2].capitalize()
    text = "\\n".join((f"[{section}]", *lines))
    return sh(
        f"mkdir -p {UNITS}/{unit}.d && printf '{text}\\n' > {UNITS}/{unit}.d/local.conf && "
        f"systemctl daemon-reload && {then}"
    )


RESTART = f"systemctl restart --no-block {UNIT}"


def until(b: Bench, words: str, seconds: float = 30) -> None:
    """Until a line of shell is true."""
    wait_until(
        lambda: not b.machine.run("sh", "-c", words, check=False).returncode,
        seconds,
        words,
        pause=0.2,
    )
