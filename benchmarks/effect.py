"""`python -m benchmarks effect [--minutes N]`: do strategies have their effect on a real model?

The model is SmolLM2-135M-Instruct on llama.cpp (see optictl/demo/model.py), the questions are those
of `optictl compare`. Each strategy is asked with the fixes of `effect:` on and off; beside it the
plain model, and the plain model sampled as often, best by majority. EFFECT.md gets the tables, and
the CPU time of a judgement.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import judgement
from benchmarks.effect_tables import (
    OFF,
    OFTEN,
    ON,
    PLAIN,
    STRATEGIES,
    Record,
    Results,
    name,
    report,
)
from benchmarks.lab import Lab, laboratory, say
from benchmarks.servers import PROXY_KEY, configured
from optictl.demo import model
from optictl.deployment.config import Config
from optictl.deployment.config_sections import Effect
from optictl.guard.settings import FIXES
from optictl.host import files, network
from optictl.host.network import Response
from optictl.proof import evidence
from optictl.requests.compare import questions as asking
from optictl.requests.compare.questions import Question
from optictl.requests.compare.run import BUILT_IN
from testing.kept import model_directory

MINUTES, TOKENS = 60.0, 400
#: Plain samples of a question: no strategy asks for more completions.
POOL, AT_ONCE = 8, 4
#: Seconds of a request.
PATIENCE = 900


@dataclass(frozen=True)
class Side:
    """A model and a service in front of it: their base URLs. Each model has one thread."""

    model: str
    service: str

    def ask(self, strategy: str, question: Question, tokens: int) -> tuple[Response, int]:
        """A strategy's answer, and the tokens of its calls."""
        before = self._predicted()
        answer = _send(self.service, f"{strategy}-jerry-xl", question, tokens)
        # llama.cpp's usage has the tokens of one of `n` choices
        completed = self._predicted() - before
        traces = f"{self.service.removesuffix('/v1')}/guard/traces"
        place = f"{traces}/{evidence.header(answer, 'trace')}"
        trace = network.request("GET", place, key=PROXY_KEY).data
        return answer, trace["prompt_tokens"] + completed

    def _predicted(self) -> int:
        """The tokens that the model has written since its start."""
        text = network.request("GET", f"{self.model.removesuffix('/v1')}/metrics").text
        found = re.search(r"^llamacpp:tokens_predicted_total (\S+)$", text, re.M)
        if found is None:
            raise RuntimeError("llama.cpp has no count of its tokens")
        return int(float(found[1]))


def _send(url: str, wanted: str, question: Question, tokens: int) -> Response:
    body = {"model": wanted, "messages": list(question.messages), "max_tokens": tokens}
    address = f"{url}/chat/completions"
    return network.request("POST", address, key=PROXY_KEY, body=body, timeout=PATIENCE)


@dataclass(frozen=True)
class Bench:
    """Both sides: fixes off and on."""

    sides: Mapping[str, Side]
    tokens: int

    def ask(self, question: Question) -> Iterator[Record]:
        """Every subject's answer to a question."""
        pool = self._pool(question)
        yield often(question, PLAIN, pool[:1])
        for strategy in STRATEGIES:
            with ThreadPoolExecutor(len(self.sides)) as threads:
                sent = {
                    fixes: threads.submit(side.ask, strategy, question, self.tokens)
                    for fixes, side in self.sides.items()
                }
            records = [
                strategy_record(question, name(strategy, fixes), *one.result())
                for fixes, one in sent.items()
            ]
            yield from records
            completions = max(1, *(record.completions for record in records))
            yield often(question, name(strategy, OFTEN), pool[:completions])

    def _pool(self, question: Question) -> list[tuple[str, int]]:
        """Samples of the plain model, each with its tokens."""
        urls = [side.model for side in self.sides.values()] * (POOL // len(self.sides))
        with ThreadPoolExecutor(AT_ONCE) as threads:
            sent = [threads.submit(_send, url, "jerry-xl", question, self.tokens) for url in urls]
        answers = [one.result() for one in sent]
        for answer in answers:
            if answer.status != 200:
                raise RuntimeError(f"the model failed: {evidence.error_message(answer)}")
        return [(evidence.content(one), evidence.usage(one)["total"]) for one in answers]


def strategy_record(question: Question, subject: str, answer: Response, tokens: int) -> Record:
    """The record of a strategy's answer. Without an answer, it had no effect. Pure."""

    def listed(header: str) -> tuple[str, ...]:
        return tuple(filter(None, (evidence.header(answer, header) or "").split(",")))

    is_answer = answer.status == 200
    return Record(
        question.id,
        subject,
        is_answer and asking.right(question, evidence.content(answer)),
        (evidence.header(answer, "effect") or "none") if is_answer else "none",
        (*listed("degraded"), *(() if is_answer else (f"status {answer.status}",))),
        listed("fixed"),
        evidence.number(answer, "upstream-calls"),
        evidence.number(answer, "upstream-completions"),
        tokens,
    )


def often(question: Question, subject: str, pool: Sequence[tuple[str, int]]) -> Record:
    """The answer that most samples give, of several the first; each with its tokens. Pure."""
    finals = [asking.final_answer(question, text) for text, _ in pool]
    best = Counter(filter(None, finals)).most_common(1)
    text = pool[finals.index(best[0][0])][0] if best else ""
    return Record(
        question.id,
        subject,
        asking.right(question, text),
        calls=len(pool),
        completions=len(pool),
        tokens=sum(tokens for _, tokens in pool),
    )


def measure(results: Results, lab: Lab, given: argparse.Namespace) -> None:
    """Measure the judgement, and ask every question that fits into the time."""
    results.milliseconds = judgement.milliseconds()
    questions = asking.parse(BUILT_IN.read_text(encoding="utf-8"))[: given.questions]
    asked = {record.question for record in results.records}
    until = time.monotonic() + 60 * given.minutes
    with bench(lab, given.tokens) as ready:
        for place, question in enumerate(questions, start=1):
            if question.id in asked:
                continue
            if time.monotonic() > until:
                say(f"effect: no time left for {len(questions) - place + 1} questions")
                break
            since = time.monotonic()
            # a question counts for all subjects or for none
            records = list(ready.ask(question))
            results.records += records
            if given.records:
                with given.records.open("a") as file:
                    file.writelines(f"{json.dumps(asdict(record))}\n" for record in records)
            say(f"effect: question {place} of {len(questions)}, {time.monotonic() - since:.0f} s")


@contextmanager
def bench(lab: Lab, tokens: int) -> Iterator[Bench]:
    """A model and a service for each side, which run side by side."""
    sides = {}
    with ExitStack() as stack:
        logs = stack.enter_context(files.scratch())
        for fixes, is_on in ((OFF, False), (ON, True)):
            log = logs / f"{fixes}.log"
            url = stack.enter_context(model.serving(model_directory(), "jerry-xl", log))
            config = Config(effect=Effect(**dict.fromkeys(FIXES, is_on)))
            moved = config.moved(network.free_port(), url, request=PATIENCE, drain=1)
            server = stack.enter_context(configured(lab.release, moved))
            sides[fixes] = Side(url, f"http://127.0.0.1:{server.port}/v1")
        yield Bench(sides, tokens)


def read(path: Path | None) -> list[Record]:
    """The records of an earlier run; none without a file."""
    text = path.read_text() if path and path.exists() else ""
    records = []
    for line in text.splitlines():
        fields: dict[str, Any] = json.loads(line)
        lists = {key: tuple(fields[key]) for key in ("codes", "fixed")}
        records.append(Record(**{**fields, **lists}))
    return records


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the tables, and write them."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks effect", description="Strategies on a real model."
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=MINUTES,
        help=f"begin no question after that (default: {MINUTES:g})",
    )
    parser.add_argument("--questions", type=int, default=None, metavar="N", help="the first N only")
    parser.add_argument("--tokens", type=int, default=TOKENS, help="max_tokens of a request")
    parser.add_argument(
        "--output", type=Path, default=Path(__file__).with_name("EFFECT.md"), metavar="FILE"
    )
    parser.add_argument(
        "--records", type=Path, metavar="FILE", help="keep the records here, and resume from it"
    )
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    results, since = Results(read(options.records)), time.monotonic()
    try:
        with laboratory(full=False) as lab:
            measure(results, lab, options)
    finally:  # also what an interrupted run has measured
        if results.records:
            text = report(results, options.tokens, (time.monotonic() - since) / 60)
            print(text)
            options.output.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
