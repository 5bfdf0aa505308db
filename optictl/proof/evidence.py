"""One real request through the proxy, and the proof of what it caused upstream."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from optictl.deployment import model_names
from optictl.deployment.config import Config
from optictl.guard.error_texts import is_error_text
from optictl.host import network
from optictl.host.network import Response
from optictl.results import Result

PROMPT = (
    "A bat and a ball cost 1.10 together. The bat costs 1.00 more than the ball. "
    "What does the ball cost? Think it through."
)
#: Strategies that make one call by design, with a prompt of their own (re2.py, cot_reflection.py of OptiLLM 0.3.12).
_ONE_CALL = frozenset({"re2", "cot_reflection"})
#: So much longer than the plain prompt theirs is at least; `re2` says all of it twice.
_LONGER = 1.3
_REMEDY = "optictl check names what is wrong"


def header(answer: Response, name: str) -> str | None:
    """One of the guard's headers, also as LiteLLM hands it on."""
    return answer.headers.get(f"x-optillm-{name}") or answer.headers.get(
        f"llm_provider-x-optillm-{name}"
    )


def number(answer: Response, name: str) -> int:
    """One of the guard's headers that counts something; 0 where it does not stand there."""
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
    found = (m.get("id") for m in data if isinstance(m, dict)) if isinstance(data, list) else ()
    return {name for name in found if isinstance(name, str)}


def usage(answer: Response) -> dict[str, int]:
    """The tokens of an answer: prompt, completion, total."""
    usage = answer.data.get("usage") if isinstance(answer.data, dict) else None
    usage = usage if isinstance(usage, dict) else {}
    names = {"prompt": "prompt_tokens", "completion": "completion_tokens", "total": "total_tokens"}
    return {
        short: n if isinstance(n := usage.get(name), int) else 0 for short, name in names.items()
    }


def judge(model: str, config: Config, answer: Response, plain: Mapping[str, int] = {}) -> Result:
    """What an answer proves. Pure.

    It passes only if the strategy that ran is the one asked for, more than one completion
    was sampled (or, of a strategy that makes one call, a longer prompt was sent), every upstream
    call used the base model, none failed and the answer is no error text. `plain` is what the
    same prompt cost without a strategy, as `usage` tells it, {} if unknown.
    """
    target = config.publish.get(model, model)
    wanted = model_names.split(target, config.strategies, config.base_models)
    strategy, base_model = wanted or ("", "")
    ran, calls = header(answer, "strategy"), number(answer, "upstream-calls")
    completions, failures = (
        number(answer, "upstream-completions"),
        number(answer, "upstream-failures"),
    )
    used = [name for name in (header(answer, "upstream-models") or "").split(",") if name]
    text, tokens, once = content(answer), usage(answer), strategy in _ONE_CALL
    problems = []
    if answer.status != 200:
        problems.append(error_message(answer))
    elif ran is None:
        problems.append(
            "the answer carries no proof: this OptiLLM runs without the guard, so nobody can tell what it did"
        )
    else:
        if ran != strategy:
            problems.append(f"{ran} ran, not {strategy}")
        if completions < (1 if once else 2):
            problems.append(f"{completions} completion(s) sampled upstream: no strategy ran")
        elif once and plain.get("prompt") and tokens["prompt"] < _LONGER * plain["prompt"]:
            problems.append(
                f"a prompt of {tokens['prompt']} tokens, {plain['prompt']} without a strategy: no strategy ran"
            )
        if used != [base_model]:
            problems.append(
                f"upstream calls used {', '.join(used) or 'no model'}, not {base_model}"
            )
        if failures:
            problems.append(f"{failures} of {calls} upstream calls failed")
        if not text or is_error_text(text):
            problems.append(f"the answer is an error text: {text[:100]!r}")
    data: dict[str, Any] = {
        "strategy": ran,
        "base_model": base_model,
        "upstream_calls": calls,
        "upstream_models": used,
        "upstream_failures": failures,
        "latency_ms": round(answer.seconds * 1000),
        "tokens": tokens,
        "answer": text,
    }
    dear = (
        f", {tokens['total'] / plain['total']:.1f} times a plain call"
        if plain.get("total") and tokens["total"]
        else ""
    )
    did = f"{calls} calls, {completions} completions, {tokens['total']} tokens, {answer.seconds:.2f} s{dear}"
    return Result(
        id=model,
        title=f"{strategy} on {base_model}",
        status="fail" if problems else "pass",
        expected=f"{strategy} asks {base_model} {'once, with a prompt of its own' if once else 'more than once'}",
        found="; ".join(problems) if problems else did,
        remedy=_REMEDY if problems else "",
        data=data,
    )


def plain_usage(
    config: Config, upstream_key: str, prompt: str, base_model: str, timeout: float
) -> dict[str, int]:
    """What the prompt costs without a strategy: one call straight to LiteLLM, as `usage` tells it. Zeros when it fails."""
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
