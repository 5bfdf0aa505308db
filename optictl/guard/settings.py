"""The command line of the guard, and the secrets that it reads from files."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from . import envfile

#: sysexits.h EX_CONFIG. systemd shows it as CONFIG, and scripts can distinguish it from a crash.
EXIT_CONFIG = 78


class Refusal(Exception):
    """The service must not start. `str()` is the reason, in one line."""


#: The fixes of strategies (see `fixes`), in the words of `--effect`.
FIXES = ("samples", "budgets", "ratings", "votes", "caches", "thinking")
#: Token limits of inner steps. OptiLLM's own are 512 and 256.
BUDGETS = {"critique": 4096, "rating": 1024}


@dataclass(frozen=True)
class Policy:
    """The fixes that are on, and the token limits of the steps `critique` and `rating`."""

    fixes: frozenset[str] = frozenset(FIXES)
    budgets: Mapping[str, int] = field(default_factory=lambda: dict(BUDGETS))


@dataclass(frozen=True)
class Settings:
    """The options of the command line.

    Times are in seconds, sizes in bytes. `proxy_key`: the key itself, read from its file; `repr()`
    does not show it. `env_file`: the file of --upstream-env.
    """

    host: str
    port: int
    base_url: str
    approach: str
    model: str
    proxy_key: str = field(repr=False)
    strategies: tuple[str, ...]
    base_models: tuple[str, ...]
    max_retries: int
    request_timeout: float
    drain_timeout: float
    max_upstream_calls: int
    max_body_bytes: int
    upstream_socket: str
    max_traces: int
    max_in_flight: int
    workers: int
    head_timeout: float = 10.0
    body_timeout: float = 30.0
    read_timeout: float = 30.0
    max_connections: int = 1024
    effect: Policy = field(default_factory=Policy)
    env_file: envfile.EnvFile | None = None


def _names(text: str) -> tuple[str, ...]:
    return tuple(part for part in (p.strip() for p in text.split(",")) if part)


def _fixes(text: str) -> frozenset[str]:
    names = frozenset(_names(text)) - {"none"}
    if wrong := names - set(FIXES):
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(wrong))}: no such fix")
    return names


def _budgets(text: str) -> dict[str, int]:
    """`critique=4096,rating=1024` -> the token limits; OptiLLM's where none is given."""
    pairs = dict(part.partition("=")[::2] for part in _names(text))
    if wrong := [name for name in pairs if name not in BUDGETS]:
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(wrong))}: no such step")
    return {**BUDGETS, **{name: int(value) for name, value in pairs.items()}}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="guard",
        allow_abbrev=False,
        description="Start OptiLLM safely, and check every request to it.",
    )
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--base-url", required=True, help="LiteLLM, with /v1")
    parser.add_argument("--approach", choices=("proxy", "auto"), required=True)
    parser.add_argument("--model", required=True, help="the base model")
    parser.add_argument(
        "--optillm-api-key", required=True, metavar="@FILE", help="file with the proxy key"
    )
    parser.add_argument("--strategies", type=_names, required=True, help="comma-separated")
    parser.add_argument(
        "--base-models", type=_names, help="comma-separated; default: the value of --model"
    )
    parser.add_argument("--max-retries", type=int, default=0)
    parser.add_argument("--request-timeout", type=float, default=600.0, help="seconds")
    parser.add_argument("--drain-timeout", type=float, default=300.0, help="seconds")
    parser.add_argument(
        "--head-timeout", type=float, default=10.0, help="seconds for a request head to arrive"
    )
    parser.add_argument(
        "--body-timeout", type=float, default=30.0, help="seconds for a request body to arrive"
    )
    parser.add_argument(
        "--read-timeout",
        type=float,
        default=30.0,
        help="seconds without progress after which an answer counts as not read",
    )
    parser.add_argument("--max-connections", type=int, default=1024, help="open at the same time")
    parser.add_argument("--max-upstream-calls", type=int, default=64)
    parser.add_argument("--max-body-bytes", type=int, default=4 * 1024 * 1024)
    parser.add_argument(
        "--max-in-flight",
        type=int,
        default=64,
        help="requests that run at the same time; the same number may wait",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        help="processes that serve; --max-in-flight is per process",
    )
    parser.add_argument(
        "--max-traces",
        type=int,
        default=200,
        help="requests whose traces stay in memory",
    )
    parser.add_argument(
        "--effect",
        type=_fixes,
        default=frozenset(FIXES),
        metavar="FIXES",
        help="comma-separated fixes of strategies, or none; default: all",
    )
    parser.add_argument(
        "--budget-tokens",
        type=_budgets,
        default=dict(BUDGETS),
        metavar="STEP=TOKENS",
        help="token limits of inner steps, comma-separated",
    )
    parser.add_argument(
        "--upstream-env",
        metavar="@FILE",
        help="env file with OPENAI_API_KEY; default: the environment",
    )
    parser.add_argument(
        "--upstream-socket",
        default="",
        metavar="PATH",
        help="Unix socket of the relay to --base-url",
    )
    return parser


def flags() -> list[str]:
    """Every flag of this guard. Later guards keep them: a unit may be older than its release."""
    return [
        word
        for word in _parser()._option_string_actions
        if word.startswith("--") and word != "--help"
    ]


def read_secret(reference: str) -> str:
    """The secret in the file of `@FILE`.

    Raises:
        Refusal: the file cannot be read, or the option is a literal key: every local user could
            read it in /proc/PID/cmdline.
    """
    if not reference.startswith("@"):
        raise Refusal("use @FILE for a key: every local user can read a literal key")
    try:
        return _read(reference).decode("utf-8").strip()
    except UnicodeDecodeError:
        raise Refusal(f"cannot read a key from {reference[1:]}: it is not UTF-8 text") from None


def _read(reference: str) -> bytes:
    """The bytes in the file of `@FILE`."""
    path = Path(reference[1:])
    try:
        return path.read_bytes()
    except OSError as error:
        raise Refusal(f"cannot read a key from {path}: {error.strerror}") from None


def _env_file(reference: str) -> envfile.EnvFile:
    """Read the env file of `@FILE`, and set OPENAI_API_KEY in the environment for OptiLLM."""
    if not reference.startswith("@"):
        raise Refusal("use @FILE for the env file")
    env_file = envfile.read(_read(reference))
    # /proc/PID/environ does not change: it shows the environment at the start of the process
    os.environ["OPENAI_API_KEY"] = env_file.variables.get("OPENAI_API_KEY", "")
    return env_file


def parse(argv: list[str]) -> Settings:
    """Parse the command line. For a wrong flag, argparse exits with code 2.

    Raises:
        Refusal: a key cannot be read.
    """
    options = _parser().parse_args(argv)
    return Settings(
        host=options.host,
        port=options.port,
        base_url=options.base_url,
        approach=options.approach,
        model=options.model,
        proxy_key=read_secret(options.optillm_api_key),
        strategies=options.strategies,
        base_models=options.base_models or (options.model,),
        max_retries=options.max_retries,
        request_timeout=options.request_timeout,
        drain_timeout=options.drain_timeout,
        max_upstream_calls=options.max_upstream_calls,
        max_body_bytes=options.max_body_bytes,
        upstream_socket=options.upstream_socket,
        max_traces=options.max_traces,
        max_in_flight=options.max_in_flight,
        workers=options.workers,
        head_timeout=options.head_timeout,
        body_timeout=options.body_timeout,
        read_timeout=options.read_timeout,
        max_connections=options.max_connections,
        effect=Policy(options.effect, options.budget_tokens),
        env_file=_env_file(options.upstream_env) if options.upstream_env else None,
    )
