"""The properties that change for users when a hand-made service is replaced. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from optictl.deployment.config import Config
from optictl.deployment.paths import Paths
from optictl.takeover.handmade import HandMade


@dataclass(frozen=True)
class Row:
    """A property with its present and its future value. It never has a secret."""

    what: str
    now: str
    becomes: str

    @property
    def changes(self) -> bool:
        return self.now != self.becomes

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "changes": self.changes}


def rows(
    hand_made: HandMade, config: Config, paths: Paths, proxy_key: str | None, dynamic: bool
) -> list[Row]:
    """The properties before and after.

    `proxy_key`: the future key, None when it will be generated. `dynamic`: systemd allocates the
    user of the service.
    """
    old_key, old_port = hand_made.proxy_key, hand_made.port
    if not old_key:
        key = "a new key: LiteLLM must send it"
    elif proxy_key == old_key:
        key = "the same"
    else:
        key = f"the key in {paths.proxy_key}: LiteLLM must send it"
    providers = ", ".join(f"{p.name} ({p.base_url})" for p in hand_made.providers) or "none"
    return [
        Row(
            "address",
            f"{hand_made.host}:{old_port or '?'}",
            f"{config.listen.host}:{config.listen.port}",
        ),
        Row("user", hand_made.user, paths.name if dynamic else "the same user"),
        Row("proxy key", "in the unit's argument list" if old_key else "none", key),
        Row("upstream", hand_made.base_url, config.upstream.base_url),
        Row("model", hand_made.model, config.model),
        Row("base models", hand_made.model, ", ".join(config.base_models)),
        Row("approach", hand_made.approach, config.approach),
        Row("providers", providers, f"litellm ({config.upstream.base_url})"),
        Row("env file", _paths(hand_made.env_files), str(paths.env)),
        Row("drop-ins", _paths([path for path, _ in hand_made.drop_ins]), "none"),
    ]


def _paths(paths: Sequence[object]) -> str:
    return ", ".join(map(str, paths)) or "none"
