"""One real request through the proxy, and the proof of what it caused upstream."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from optictl.deployment import model_names
from optictl.deployment.config import Config
from optictl.guard.error_texts import is_error_text
from optictl.host import network
from optictl.host.network import Response
from optictl.proof import effect as effects
from optictl.proof.effect import Effect
from optictl.results import Result

#: Samples differ in their words, and can agree in their answers.
PROMPT = (
    "A bat and a ball cost 1.10 together. The bat costs 1.00 more than the ball. "
    "What does the ball cost? Explain it in a few sentences. "
    "End with a line that says: Answer: and then only the number."
)
#: Strategies that make one call by design, with their own prompt (re2.py, cot_reflection.py of
#: OptiLLM 0.3.12).
ONE_CALL = frozenset({"re2", "cot_reflection"})
#: Their prompt is at least this many times the plain one; `re2` repeats all of it.
LONGER = 1.3
_REMEDY = "optictl check names what is wrong"
#: What a result means that fails for one reason only: the strategy ran, and had no effect.
NO_EFFECT = "The strategy had no effect"


def header(answer: Response, name: str) -> str | None:
    """One of the guard's headers, also as LiteLLM passes it on."""
    return answer.headers.get(f"x-optillm-{name}") or answer.headers.get(
        f"llm_provider-x-optillm-{name}"
    )


def number(answer: Response, name: str) -> int:
    """One of the guard's headers that counts something; 0 where it is missing."""
    text = header(answer, name) or ""
    return int(text) if re.fullmatch("[0-9]{1,9}", text) else 0


def content(answer: Response) -> str:
    """The text of an answer, "" where it has none."""
    try:
        return str(answer.data["choices"][0]["message"]["content"] or "")
    except (KeyError, IndexError, TypeError):
        return ""


def error_message(answer: Response) -> str:
    """Why a request failed, in the server's own words where it has some."""
    if not answer.status:
        return answer.error
    data = answer.data
    error = data.get("error") if isinstance(data, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    return f"{answer.status}: {message or answer.text[:200] or 'no text'}"


def listed_models(answer: Response) -> set[str]:
    """The names in an answer of /v1/models; none where it is something else."""
    data = answer.data.get("data") if isinstance(answer.data, dict) else None
    names = (m.get("id") for m in data if isinstance(m, dict)) if isinstance(data, list) else ()
    return {name for name in names if isinstance(name, str)}


def usage(answer: Response) -> dict[str, int]:
    """The tokens of an answer: prompt, completion, total."""
    usage = answer.data.get("usage") if isinstance(answer.data, dict) else None
    usage = usage if isinstance(usage, dict) else {}
    names = {"prompt": "prompt_tokens", "completion": "completion_tokens", "total": "total_tokens"}
    return {
        short: n if isinstance(n := usage.get(name), int) else 0 for short, name in names.items()
    }


@dataclass(frozen=True)
class _Evidence:
    """What the guard's headers and the text of an answer say. `ran`: the strategy; None without
    a guard.
    """

    ran: str | None
    calls: int
    completions: int
    failures: int
    models: list[str]
    tokens: dict[str, int]
    text: str


def _evidence(answer: Response) -> _Evidence:
    models = (header(answer, "upstream-models") or "").split(",")
    return _Evidence(
        header(answer, "strategy"),
        number(answer, "upstream-calls"),
        number(answer, "upstream-completions"),
        number(answer, "upstream-failures"),
        [name for name in models if name],
        usage(answer),
        content(answer),
    )


def judge(model: str, config: Config, answer: Response, plain: Mapping[str, int] = {}) -> Result:
    """What an answer proves. Pure.

    It passes only if the strategy that ran is the one asked for, more than one completion
    was sampled (or, of a strategy that makes one call, a longer prompt was sent), every upstream
    call used the base model, none failed, the answer is no error text, and the guard saw that the
    strategy had its effect. With a part of the effect it is a warning. `plain` is what the
    same prompt cost without a strategy, as `usage` returns it, {} if unknown.
    """
    target = config.publish.get(model, model)
    parts = model_names.split(target, config.strategies, config.base_models)
    strategy, base_model = parts or ("", "")
    seen = _evidence(answer)
    effect = effects.read({name: header(answer, name) for name in effects.HEADERS})
    problems = list(_why_not(answer, seen, strategy, base_model, plain))
    is_good = not problems and effect.status != "fail"
    how = "once, with its own prompt" if strategy in ONE_CALL else "more than once"
    cost = _cost(seen, answer.seconds, plain)
    found = [*problems, *effect.words, *(_facts(effect, cost) if is_good else [])]
    return Result(
        id=model,
        title=f"{strategy} on {base_model}",
        status="fail" if problems else effect.status,
        expected=f"{strategy} asks {base_model} {how}, and has its effect",
        found="; ".join(found),
        cause=effect.determinism if effect.status != "pass" else "",
        remedy="; ".join([*([_REMEDY] if problems else []), *effect.fixes])
        or ("" if is_good else _REMEDY),
        fault="" if problems or is_good else NO_EFFECT,
        data=_data(seen, base_model, answer.seconds, effect),
    )


def has_run(result: Result) -> bool:
    """Whether the strategy ran as asked, with effect or without."""
    return not result.failed or result.fault == NO_EFFECT


def _data(seen: _Evidence, base_model: str, seconds: float, effect: Effect) -> dict[str, Any]:
    return {
        "strategy": seen.ran,
        "base_model": base_model,
        "upstream_calls": seen.calls,
        "upstream_models": seen.models,
        "upstream_failures": seen.failures,
        "latency_ms": round(seconds * 1000),
        "tokens": seen.tokens,
        "answer": seen.text,
        **effect.as_dict(),
    }


def _facts(effect: Effect, cost: str) -> list[str]:
    """What a result shows that does not fail: the evidence of the effect, and the price."""
    unjudged = "" if effect.level else "effect not judged: the release is older than this optictl"
    # of a warning it is the cause
    determinism = effect.determinism if effect.status == "pass" else ""
    return list(filter(None, (effect.evidence, determinism, cost, unjudged)))


def _why_not(
    answer: Response,
    seen: _Evidence,
    strategy: str,
    base_model: str,
    plain: Mapping[str, int],
) -> Iterator[str]:
    """Why an answer does not prove that the strategy ran."""
    if answer.status != 200:
        yield error_message(answer)
    elif seen.ran is None:
        yield "OptiLLM runs without the guard: the answer has no proof of what it did"
    else:
        yield from _problems(seen, strategy, base_model, plain)


def _problems(
    seen: _Evidence, strategy: str, base_model: str, plain: Mapping[str, int]
) -> Iterator[str]:
    """Why an answer of the guard does not prove that the strategy ran."""
    is_one_call, prompt = strategy in ONE_CALL, plain.get("prompt")
    if seen.ran != strategy:
        yield f"{seen.ran} ran, not {strategy}"
    if seen.completions < (1 if is_one_call else 2):
        yield f"{seen.completions} completion(s) sampled upstream: no strategy ran"
    elif is_one_call and prompt and seen.tokens["prompt"] < LONGER * prompt:
        length = seen.tokens["prompt"]
        yield f"a prompt of {length} tokens, {prompt} without a strategy: no strategy ran"
    if seen.models != [base_model]:
        yield f"upstream calls used {', '.join(seen.models) or 'no model'}, not {base_model}"
    if seen.failures:
        yield f"{seen.failures} of {seen.calls} upstream calls failed"
    if not seen.text or is_error_text(seen.text):
        yield f"the answer is an error text: {seen.text[:100]!r}"


def _cost(seen: _Evidence, seconds: float, plain: Mapping[str, int]) -> str:
    total, plain_total = seen.tokens["total"], plain.get("total")
    times = f", {total / plain_total:.1f} times a plain call" if plain_total and total else ""
    calls = f"{seen.calls} calls, {seen.completions} completions"
    return f"{calls}, {total} tokens, {seconds:.2f} s{times}"


def plain_usage(
    config: Config, upstream_key: str, prompt: str, base_model: str, timeout: float
) -> dict[str, int]:
    """What the prompt costs without a strategy: the usage of one call straight to LiteLLM. Zeros
    if it fails.
    """
    body = {"model": base_model, "messages": [{"role": "user", "content": prompt}]}
    url = f"{config.upstream.base_url}/chat/completions"
    return usage(network.request("POST", url, key=upstream_key, body=body, timeout=timeout))


def run(
    url: str, key: str, model: str, prompt: str, timeout: float, headers: Mapping[str, str] = {}
) -> Response:
    """One completion through the proxy at `url` (with /v1); `timeout` in seconds."""
    body = {"model": model, "messages": [{"role": "user", "content": prompt}]}
    return network.request(
        "POST", f"{url}/chat/completions", key=key, body=body, timeout=timeout, headers=headers
    )
