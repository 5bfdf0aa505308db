"""The configurations whose artefacts are compared, byte for byte, with those in golden/."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from optictl.deployment import config_yaml, paths, render
from optictl.deployment.config import Config
from optictl.deployment.paths import Paths

GOLDEN = Path(__file__).parent / "golden"

_SEVERAL = """\
model: jerry-xl
base_models: [jerry-xl, gpt-4.1, "ollama/llama3:8b"]
approach: auto
strategies: [moa, re2]
publish: {boost: moa-jerry-xl, think-local: "re2-ollama/llama3:8b"}
plugins: [plugins/mine.py]
litellm: {config: /etc/litellm/config.yaml, env: /etc/litellm/env}
effect: {samples: no, budgets: no, ratings: no, votes: no, caches: no, thinking: no}
streaming: {progress: off}
"""
_TUNED = """\
listen: {port: 4120}
upstream: {base_url: "http://localhost:4100/v1", max_retries: 2}
timeouts: {request: 1800, drain: 60}
limits: {max_upstream_calls: 200, max_body_bytes: 1048576, parallel_calls: 4}
streaming: {progress: reasoning}
strategy_options: {bon: {samples: {default: 5, max: 8}}, self_consistency: {similarity: 0.9}}
workers: 2
isolation: loopback
effect: {votes: false, critique_tokens: 8192, warn_percent: 5, fail_percent: 20, at_least: 50}
monitoring:
  {timer: true, fail_after: 5, well_after: 1, textfile: "/var/lib/node exporter/optillm.prom"}
"""

#: name -> the configuration's text and where the deployment lives
CASES: dict[str, tuple[str, Paths]] = {
    "defaults": ("", paths.system()),
    "several-models": (_SEVERAL, paths.system()),
    "tuned": (_TUNED, paths.system()),
    "user": ("", paths.user({"HOME": "/home/jerry"})),
    "root": ("", paths.system(Path("/srv/optillm"))),
    "below-a-home": ("", paths.system(Path("/home/jerry/my optillm, 100%"))),
}

ARTEFACTS: dict[str, Callable[[Config, Paths], str]] = {
    "optillm-proxy.service": render.unit,
    "optillm-proxy.socket": render.socket,
    "optillm-proxy-upstream.service": render.upstream_service,
    "optillm-proxy-upstream.socket": render.upstream_socket,
    "optillm-proxy-bridge.service": lambda config, paths: render.bridge(
        config, paths, paths.releases / "0.3.12-0123456789ab", 40404
    ),
    "optillm-proxy-check.service": render.check_service,
    "optillm-proxy-check.timer": lambda _, paths: render.check_timer(paths),
    "env": lambda config, _: render.env(config),
    "proxy_config.yaml": lambda config, _: render.proxy_config(config),
    "litellm.yaml": render.litellm,
    "optictl.yaml": lambda config, _: render.configuration(config),
}


def case(name: str) -> tuple[Config, Paths]:
    """A case's configuration, parsed, and its paths."""
    text, places = CASES[name]
    return config_yaml.parse(text, name), places


def artefacts(name: str) -> Iterator[tuple[Path, str]]:
    """Every artefact of a case: where its golden file lies, and what is rendered now."""
    read, places = case(name)
    for file, write in ARTEFACTS.items():
        yield GOLDEN / name / file, write(read, places)
