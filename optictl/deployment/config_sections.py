"""The sections of optictl.yaml, with their defaults."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from optictl.guard import invariants


class Section(BaseModel):
    """The keys of one section. An unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Listen(Section):
    """Where the proxy listens: this machine only."""

    host: str = Field(
        "127.0.0.1",
        description="Always 127.0.0.1: clients reach OptiLLM through LiteLLM.",
        json_schema_extra={"enum": ["127.0.0.1"]},
    )
    port: int = Field(
        4020, ge=1, le=65535, description="Each deployment on a host needs its own port."
    )

    @field_validator("host")
    @classmethod
    def _loopback(cls, host: str) -> str:
        if host != "127.0.0.1":
            raise ValueError("must be 127.0.0.1: the proxy is for LiteLLM on this machine only")
        return host


class Upstream(Section):
    """LiteLLM, as OptiLLM calls it back."""

    base_url: str = Field(
        "http://127.0.0.1:4000/v1", description="LiteLLM's address with /v1; this machine only."
    )
    max_retries: int = Field(
        0, ge=0, le=5, description="Retries of one upstream call. LiteLLM retries already."
    )

    @field_validator("base_url")
    @classmethod
    def _loopback(cls, base_url: str) -> str:
        if problem := invariants.upstream_problem(base_url):
            raise ValueError(problem)
        return base_url.rstrip("/")


class OptiLLM(Section):
    """The OptiLLM to install."""

    version: str = Field(
        "0.3.12",
        pattern=r"^\d+(\.\d+)*([a-z0-9.]*)$",
        # those with a lock
        examples=["0.3.12", "0.3.13", "0.3.22", "0.4.0"],
        description="A version that has a lock. `optictl upgrade` changes it.",
    )
    profile: Literal["proxy", "full"] = Field(
        "proxy",
        description="proxy: the packages that a proxy needs; full: all that OptiLLM declares.",
    )


class Releases(Section):
    """How many releases stay on disk."""

    keep: int = Field(
        2,
        ge=1,
        le=20,
        description="Releases to keep: the active one, the previous one, then the newest.",
    )


class LiteLLM(Section):
    """Paths of LiteLLM's files, for the loop check. null: not checked."""

    config: str | None = Field(None, description="The path of LiteLLM's configuration file.")
    env: str | None = Field(
        None, description="The path of the env file with the environment of LiteLLM."
    )


class Timeouts(Section):
    """Time limits in seconds."""

    request: int = Field(
        600, ge=1, le=86_400, description="The longest time that a client request may take."
    )
    drain: int = Field(
        300, ge=0, le=86_400, description="The longest time that a stopping service may drain."
    )
    head: int = Field(
        10,
        ge=1,
        le=3600,
        description="The longest time for the head of a request to arrive; then 408 or close.",
    )
    body: int = Field(
        30, ge=1, le=3600, description="The longest time for the body to arrive; then 400."
    )
    read: int = Field(
        30,
        ge=1,
        le=3600,
        description="The longest time without progress of a client that reads an answer; "
        "then the connection is closed.",
    )


class Limits(Section):
    """Limits for requests."""

    max_upstream_calls: int = Field(
        64,
        ge=1,
        le=10_000,
        description="Upstream calls of one request; a request with more fails with 400.",
    )
    parallel_calls: int = Field(
        16,
        ge=1,
        le=64,
        description="Upstream calls of one request at the same time; 1: one after the other, "
        "as OptiLLM makes them.",
    )
    max_body_bytes: int = Field(
        4 * 1024 * 1024,
        ge=1024,
        le=1024**3,
        description="The largest request body in bytes; a larger one gets 413.",
    )
    max_in_flight: int = Field(
        64,
        ge=1,
        le=512,
        description="Requests that run at the same time; the same number may wait.",
    )
    max_connections: int = Field(
        1024,
        ge=16,
        le=2048,
        description="Connections that are open at the same time; the one that waits longest "
        "without a request is closed for a new one.",
    )
    max_traces: int = Field(
        200,
        ge=0,
        le=10_000,
        description="Requests whose traces the service keeps in memory.",
    )


class Streaming(Section):
    """Whether upstream calls stream, and what a streaming client gets beside the answer."""

    calls: bool = Field(
        True,
        description="Stream upstream calls for one completion: a model server such as llama.cpp "
        "notices the end of a request only while it sends.",
    )
    progress: Literal["off", "reasoning"] = Field(
        "off",
        description="reasoning: a line for each finished step, which chat clients show as "
        "thinking.",
    )

    @field_validator("progress", mode="before")
    @classmethod
    def _off(cls, progress: object) -> object:
        # YAML reads an unquoted off as false
        return "off" if progress is False else progress


class Effect(Section):
    """What the service fixes so that a strategy has its effect, and when check reports a loss."""

    samples: bool = Field(
        True, description="Ask for missing samples: many upstreams return one choice for `n: 3`."
    )
    budgets: bool = Field(
        True,
        description="Give critiques and ratings a token limit that a real answer fits into: "
        "OptiLLM drops one that reaches its limit of 512 or 256.",
    )
    ratings: bool = Field(
        True,
        description="Read ratings such as 8/10, and ask once more for one without a number: "
        "OptiLLM takes them for 0.",
    )
    votes: bool = Field(
        True,
        description="Let self_consistency vote on the final answers: long texts are never equal.",
    )
    caches: bool = Field(
        True,
        description="Keep LiteLLM's response cache away from the calls of one request: "
        "it returns one sample several times.",
    )
    thinking: bool = Field(
        True,
        description="Hide the thinking of a candidate from the critique, the rating and the vote: "
        "only its answer counts.",
    )
    critique_tokens: int = Field(
        4096, ge=256, le=1_000_000, description="The token limit of a critique, with `budgets`."
    )
    rating_tokens: int = Field(
        1024, ge=16, le=1_000_000, description="The token limit of a rating, with `budgets`."
    )
    answer_tokens: int = Field(
        4096,
        ge=16,
        le=1_000_000,
        description="The token limit of a strategy's texts for a client that sends none.",
    )
    warn_percent: int = Field(
        10,
        ge=1,
        le=100,
        description="Percentage of a strategy's last requests without effect from which "
        "strategies.effect warns.",
    )
    fail_percent: int = Field(
        50,
        ge=1,
        le=100,
        validate_default=True,
        description="Percentage from which it fails; at least `warn_percent`.",
    )
    at_least: int = Field(
        20, ge=1, le=100, description="Requests of a strategy that it needs for a verdict."
    )

    @field_validator("fail_percent")
    @classmethod
    def _not_before_the_warning(cls, percent: int, seen: ValidationInfo) -> int:
        if percent < seen.data.get("warn_percent", 0):
            raise ValueError("must be at least warn_percent")
        return percent

    @property
    def fixes(self) -> tuple[str, ...]:
        """The fixes that are on."""
        return tuple(name for name, value in self if value is True)


class Monitoring(Section):
    """A timer that checks the deployment every minute. systemctl --failed lists a failed check."""

    timer: bool = Field(False, description="Install the timer. It needs systemd.")
    fail_after: int = Field(
        3, ge=1, le=1000, description="Consecutive failed runs after which the check's unit fails."
    )
    well_after: int = Field(
        2, ge=1, le=1000, description="Consecutive passed runs after which the unit recovers."
    )
    textfile: str | None = Field(
        None,
        description="A file for the metrics of each run, read by node_exporter: "
        "an absolute path that ends in .prom.",
    )

    @field_validator("textfile")
    @classmethod
    def _collected(cls, textfile: str | None) -> str | None:
        if textfile is not None and not (
            textfile.startswith("/") and textfile.endswith(".prom") and textfile.isprintable()
        ):
            raise ValueError(
                "must be an absolute path that ends in .prom: node_exporter reads no other file"
            )
        return textfile
