"""The command line of the guard, and the secrets that it reads from files."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass, field
from pathlib import Path

from . import envfile, strategy_options

#: sysexits.h EX_CONFIG. systemd shows it as CONFIG, and scripts can distinguish it from a crash.
EXIT_CONFIG = 78
#: The fixes that give a strategy its effect. Each can be off; then OptiLLM behaves as it is.
FIXES = ("samples", "budgets", "ratings", "votes", "caches", "thinking")
#: Step -> its token limit, with the fix `budgets`.
BUDGET_TOKENS = {"critique": 4096, "rating": 1024}
#: Tokens of a text for a client that sends no limit. Source: the strategies of OptiLLM 0.3.12.
ANSWER_TOKENS = 4096
#: How a streaming client sees the steps of a strategy: not at all, or as reasoning.
PROGRESS = ("off", "reasoning")
#: The name of the deployment where no other one is given.
DEPLOYMENT = "optillm-proxy"
#: What chooses the strategy: the model's name only, or a tag in a message and a body field too.
CHOICES = ("name", "prompt")
#: Upstream calls of one request at the same time.
PARALLEL_CALLS = 16


class Refusal(Exception):
    """The service must not start. `str()` is the reason, in one line."""


@dataclass(frozen=True)
class Settings:
    """The options of the command line.

    Times are in seconds, sizes in bytes. `proxy_key`: the key itself, read from its file; `repr()`
    does not show it. `env_file`: the file of --upstream-env. `effect`: the fixes that are on.
    `budget_tokens`: step -> its token limit. `strategy_options`: strategy -> option -> bounds.
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
    env_file: envfile.EnvFile | None = None
    effect: tuple[str, ...] = FIXES
    budget_tokens: dict[str, int] = field(default_factory=lambda: dict(BUDGET_TOKENS))
    answer_tokens: int = ANSWER_TOKENS
    parallel_calls: int = PARALLEL_CALLS
    stream_calls: bool = True
    progress: str = "off"
    choice: str = "name"
    deployment: str = DEPLOYMENT
    strategy_options: strategy_options.Deployment = field(default_factory=dict)


def _names(text: str) -> tuple[str, ...]:
    return tuple(part for part in (p.strip() for p in text.split(",")) if part)


def _fixes(text: str) -> tuple[str, ...]:
    """The fixes of `samples,votes`; none of `none`."""
    names = () if text == "none" else _names(text)
    if unknown := [name for name in names if name not in FIXES]:
        raise argparse.ArgumentTypeError(f"unknown fix {unknown[0]!r}")
    return names


def _budgets(text: str) -> dict[str, int]:
    """The token limits of `critique=4096,rating=1024`. A step that is not named has its default."""
    limits = dict(BUDGET_TOKENS)
    for part in _names(text):
        step, _, tokens = part.partition("=")
        if step not in limits or not tokens.isdecimal() or int(tokens) < 1:
            raise argparse.ArgumentTypeError(f"{part!r} is not a step with its token limit")
        limits[step] = int(tokens)
    return limits


def _options(text: str) -> strategy_options.Deployment:
    try:
        return strategy_options.deployment(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


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
    parser.add_argument(
        "--parallel-calls",
        type=int,
        default=PARALLEL_CALLS,
        help="upstream calls of one request at the same time; 1 is the order of OptiLLM",
    )
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
        default=FIXES,
        help=f"fixes that are on, comma-separated ({', '.join(FIXES)}), or none",
    )
    parser.add_argument(
        "--budget-tokens",
        type=_budgets,
        default=dict(BUDGET_TOKENS),
        metavar="STEP=TOKENS,...",
        help="token limits of the steps, with the fix budgets",
    )
    parser.add_argument(
        "--answer-tokens",
        type=int,
        default=ANSWER_TOKENS,
        help="the token limit of a strategy's texts for a client that sends none",
    )
    parser.add_argument(
        "--stream-calls",
        choices=("yes", "no"),
        default="yes",
        help="stream upstream calls for one completion, so that the model notices an early end",
    )
    parser.add_argument(
        "--progress",
        choices=PROGRESS,
        default="off",
        help="send each finished step to a streaming client as reasoning",
    )
    parser.add_argument(
        "--choice",
        choices=CHOICES,
        default="name",
        help="what chooses the strategy: the model's name, or also <optillm_approach> tags",
    )
    parser.add_argument(
        "--deployment",
        default=DEPLOYMENT,
        metavar="NAME",
        help="the label `deployment` of every metric",
    )
    parser.add_argument(
        "--strategy-options",
        type=_options,
        default={},
        metavar="STRATEGY.OPTION=DEFAULT:MIN:MAX,...",
        help="values and bounds of the options of strategies, or none",
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
        env_file=_env_file(options.upstream_env) if options.upstream_env else None,
        effect=options.effect,
        budget_tokens=options.budget_tokens,
        answer_tokens=options.answer_tokens,
        parallel_calls=options.parallel_calls,
        stream_calls=options.stream_calls == "yes",
        progress=options.progress,
        choice=options.choice,
        deployment=options.deployment,
        strategy_options=options.strategy_options,
    )
