"""The guard's command line, and the secret it reads by reference."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass, field
from pathlib import Path

from . import envfile

#: sysexits.h EX_CONFIG: systemd shows it as CONFIG, scripts can tell it from a crash.
EXIT_CONFIG = 78


class Refusal(Exception):
    """The service must not start. `str()` is the one line that says why."""


@dataclass(frozen=True)
class Settings:
    """Everything the service was told on its command line.

    Times are seconds, sizes are bytes. `proxy_key` is the secret itself, already read
    from its file, and is kept out of `repr()`. `env_file` is what --upstream-env named.
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
    env_file: envfile.EnvFile | None = None


def _names(text: str) -> tuple[str, ...]:
    return tuple(part for part in (p.strip() for p in text.split(",")) if part)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="guard",
        allow_abbrev=False,
        description="OptiLLM behind a door: starts it safely and checks every request.",
    )
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--base-url", required=True, help="LiteLLM, with /v1")
    parser.add_argument("--approach", choices=("proxy", "auto"), required=True)
    parser.add_argument("--model", required=True, help="the base model")
    parser.add_argument(
        "--optillm-api-key", required=True, metavar="@FILE", help="file that holds the proxy key"
    )
    parser.add_argument("--strategies", type=_names, required=True, help="comma-separated")
    parser.add_argument(
        "--base-models", type=_names, help="comma-separated; default: the model alone"
    )
    parser.add_argument("--max-retries", type=int, default=0)
    parser.add_argument("--request-timeout", type=float, default=600.0, help="seconds")
    parser.add_argument("--drain-timeout", type=float, default=300.0, help="seconds")
    parser.add_argument("--max-upstream-calls", type=int, default=64)
    parser.add_argument("--max-body-bytes", type=int, default=4 * 1024 * 1024)
    parser.add_argument(
        "--max-in-flight",
        type=int,
        default=64,
        help="requests that run at a time; as many again may wait",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        help="processes that serve; each has the bound of --max-in-flight",
    )
    parser.add_argument(
        "--max-traces",
        type=int,
        default=200,
        help="how many of the last requests are kept in memory",
    )
    parser.add_argument(
        "--upstream-env",
        metavar="@FILE",
        help="env file that holds OPENAI_API_KEY; else the environment",
    )
    parser.add_argument(
        "--upstream-socket", default="", metavar="PATH", help="unix socket that leads to --base-url"
    )
    return parser


def flags() -> list[str]:
    """Every flag that this guard knows. A later guard knows them too: a unit may be older than the release it starts."""
    return [
        word
        for word in _parser()._option_string_actions
        if word.startswith("--") and word != "--help"
    ]


def read_secret(reference: str) -> str:
    """The secret behind `@FILE`.

    A literal value is refused: it would stand in /proc/PID/cmdline, which every local
    user may read.
    """
    if not reference.startswith("@"):
        raise Refusal("a key must be given as @FILE: a literal one is readable by every local user")
    try:
        return _read(reference).decode("utf-8").strip()
    except UnicodeDecodeError:
        raise Refusal(f"cannot read a key from {reference[1:]}: not text") from None


def _read(reference: str) -> bytes:
    """The bytes of the file behind `@FILE`."""
    path = Path(reference[1:])
    try:
        return path.read_bytes()
    except OSError as error:
        raise Refusal(f"cannot read a key from {path}: {error.strerror}") from None


def _env_file(reference: str) -> envfile.EnvFile:
    """The env file behind `@FILE`; its OPENAI_API_KEY is put where OptiLLM reads it."""
    if not reference.startswith("@"):
        raise Refusal("the env file must be given as @FILE")
    env_file = envfile.read(_read(reference))
    # OptiLLM reads it from the environment; /proc/PID/environ keeps what the process started with
    os.environ["OPENAI_API_KEY"] = env_file.variables.get("OPENAI_API_KEY", "")
    return env_file


def parse(argv: list[str]) -> Settings:
    """Command line -> Settings. argparse ends with exit code 2 on a wrong flag."""
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
        env_file=_env_file(options.upstream_env) if options.upstream_env else None,
    )
