"""`optictl compare`: selects models and questions, and sends the requests that are left."""

from __future__ import annotations

import hashlib
import shlex
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from optictl.deployment import model_names
from optictl.deployment.config import Config, suggest
from optictl.errors import (
    BudgetTooSmall,
    FileFailure,
    InvalidFile,
    Locked,
    RequestsFailed,
    UnknownModel,
    of_os,
    os_words,
)
from optictl.guard.error_texts import is_error_text
from optictl.host import files, network
from optictl.host.network import Response
from optictl.proof import effect, evidence
from optictl.requests.compare import questions as asking
from optictl.requests.compare import summary
from optictl.requests.compare.questions import Question, QuestionsError
from optictl.requests.compare.summary import Header, Record, RecordsError, Subject
from optictl.requests.smoke import Keys, patience

#: After this many consecutive failures of one model, that model is asked no more; after this many
#: of all models, the comparison stops.
FAILURES_IN_A_ROW = 3
#: Seconds in which a server that runs answers at least with an error.
_DOWN_TIMEOUT = 10
#: Characters of an error message that are kept.
_ERROR_LENGTH = 200
BUILT_IN = Path(__file__).with_name("questions.jsonl")


@dataclass(frozen=True)
class Request:
    """One request of a comparison. `sample`: its number, where the plain model is asked often."""

    subject: Subject
    question: Question
    sample: int = 1


@dataclass
class Comparison:
    """A comparison and its results so far. Every answer is added to `records` and to `file`.

    `plain_samples`: the plain model is also asked as often as each strategy asks it.
    """

    header: Header
    subjects: list[Subject]
    questions: list[Question]
    file: Path
    records: list[Record] = field(default_factory=list)
    plain_samples: bool = False

    @property
    def left(self) -> list[Request]:
        """The requests that are left: those of the models, then the samples of the plain ones."""
        left = summary.left(self.subjects, self.questions, self.records)
        return [*(Request(subject, question) for subject, question in left), *self.samples_left]

    @property
    def samples_left(self) -> list[Request]:
        """The samples that are left beside the plain requests that are."""
        left = summary.left(self.subjects, self.questions, self.records)
        return self.samples({(s.model, question.id) for s, question in left if not s.strategy})

    def samples(self, to_come: Collection[tuple[str, str]] = ()) -> list[Request]:
        """The samples that are left. `to_come`: (base model, question) of plain requests."""
        if not self.plain_samples:
            return []
        left = summary.samples_left(self.subjects, self.questions, self.records, to_come)
        return [Request(*request) for request in left]

    @property
    def expected_calls(self) -> int:
        """The estimated upstream calls of the requests that are left."""
        return round(sum(summary.expected_calls(r.subject, self.records) for r in self.left))

    @property
    def tokens(self) -> int:
        return sum(r.tokens for r in self.records)

    @property
    def enough(self) -> int:
        """The estimated tokens of the whole comparison."""
        return self.tokens + sum(map(self._expected, self.left))

    def _expected(self, request: Request) -> int:
        return summary.expected_tokens(
            request.subject, request.question, self.subjects, self.records
        )

    def expected_cost(self, prices: summary.AnyPrices) -> float | None:
        """The estimated cost of the requests that are left; None if a price is not known."""
        costs = [self._cost(request, prices) for request in self.left]
        known = [cost for cost in costs if cost is not None]
        return sum(known) if len(known) == len(costs) else None

    def _cost(self, request: Request, prices: summary.AnyPrices) -> float | None:
        subject = request.subject
        of_model = summary.price_of(prices, subject.base_model)
        share = summary.prompt_share(subject.model, self.records)
        return of_model.expected(self._expected(request), share) if of_model else None

    def fits(self, request: Request, budget: int | None) -> bool:
        """Whether a request is expected to stay within the token budget."""
        return budget is None or self.tokens + self._expected(request) <= budget

    def refuse_small(self, budget: int | None) -> None:
        """Raise BudgetTooSmall if a token budget does not fit the first request of all."""
        if not self.records and not self.fits(self.left[0], budget):
            raise BudgetTooSmall(
                f"--budget-tokens {budget} may be too small for the first question",
                remedy=f"use --budget-tokens {self.enough} (estimate for the whole comparison)",
            )

    def rows(self, prices: summary.AnyPrices) -> list[summary.Row]:
        return summary.rows(self.rivals, self.questions, self.records, prices)

    @property
    def rivals(self) -> list[Subject]:
        """All that is compared: each baseline stands behind its plain model."""
        baselines = summary.baselines(self.subjects, self.records) if self.plain_samples else []
        return [
            rival
            for s in self.subjects
            for rival in (s, *(b for b in baselines if not s.strategy and b.model == s.model))
        ]

    def command(self, budget: int | None, *flags: str) -> str:
        """The arguments of `optictl` that resume this comparison; `flags` are added."""
        limit = [f"--budget-tokens {budget}"] if budget else []
        return " ".join(
            ["compare --resume", shlex.quote(str(self.file)), *limit, *map(shlex.quote, flags)]
        )


def subjects(config: Config, asked: list[str]) -> list[Subject]:
    """The named models or every enabled strategy, each group after its base model.

    Raises:
        UnknownModel: the deployment does not serve one of them.
    """
    by_base_model: dict[str, list[Subject]] = {}
    for name in asked or [*config.base_models, *config.published]:
        target = config.publish.get(name, name)
        strategy, base_model = model_names.split(target, config.strategies, config.base_models) or (
            "",
            target,
        )
        if base_model not in config.base_models:
            known = [*config.published, *config.base_models]
            raise UnknownModel(
                f"{name} is not an enabled strategy on a base model{suggest(name, known)}",
                remedy=f"one of these: {', '.join(known)}",
            )
        of_base = by_base_model.setdefault(base_model, [Subject(base_model, "", base_model)])
        if (subject := Subject(target, strategy, base_model)) not in of_base:
            of_base.append(subject)
    return [subject for of_base in by_base_model.values() for subject in of_base]


def begin(
    config: Config,
    asked: list[str],
    prompts: Path | None,
    resume: Path | None,
    plain_samples: bool = False,
) -> Comparison:
    """A new comparison, or the one in the file `resume`, with its models and questions by default.

    `plain_samples`: as of `Comparison`.

    Raises:
        UnknownModel: the deployment does not serve a model.
        OptictlError: a file cannot be used.
    """
    kept = _kept(resume) if resume else None
    if kept is not None:
        asked = asked or list(kept[0].models)
        prompts = prompts or (Path(kept[0].prompts) if kept[0].prompts else None)
    compared = subjects(config, asked)
    questions = _questions(prompts)
    header = Header(
        asking.digest(questions),
        str(prompts) if prompts else None,
        tuple(s.model for s in compared),
    )
    if kept is not None and resume is not None and kept[0].questions != header.questions:
        raise InvalidFile(
            f"{resume} has other questions than {prompts or 'this version of optictl'}",
            remedy="start a new comparison, without --resume",
        )
    file = resume or Path(f"optictl-compare-{time.strftime('%Y%m%d-%H%M%S')}.jsonl").absolute()
    records = kept[1] if kept else []
    return Comparison(header, compared, questions, file, records, plain_samples)


def _kept(path: Path) -> tuple[Header, list[Record]] | None:
    text = files.read(path)
    if not text:
        return None
    try:
        return summary.read(text)
    except RecordsError as error:
        raise InvalidFile(
            f"{path} cannot be resumed: {error}", remedy="name another file"
        ) from None


def _questions(path: Path | None) -> list[Question]:
    text = files.read(path or BUILT_IN)
    if text is None:
        raise FileFailure(f"{path} does not exist", remedy="name a questions file with --prompts")
    try:
        return asking.parse(text)
    except QuestionsError as invalid:
        raise InvalidFile(
            f"{path} cannot be used: {len(invalid.problems)} problem(s)",
            remedy="write lines such as "
            '{"prompt": "What is 6 times 7?", "expected": {"number": 42}}',
            detail="\n".join(map(str, invalid.problems)),
            problems=[vars(problem) for problem in invalid.problems],
        ) from None


def record(request: Request, answer: Response, keep: bool) -> Record:
    """The record of an answer. Pure. `keep`: whether it includes the answer's text."""
    subject, question = request.subject, request.question
    text, tokens = evidence.content(answer), evidence.usage(answer)
    ran = evidence.header(answer, "strategy")
    error = ""
    if answer.status != 200:
        error = evidence.error_message(answer)[:_ERROR_LENGTH]
    elif subject.strategy and ran != subject.strategy:
        error = (
            f"{ran} ran"
            if ran
            else "no proof that the strategy ran: OptiLLM runs without the guard"
        )
    elif is_error_text(text):
        error = "the answer is an error text of OptiLLM"
    given = effect.read({name: evidence.header(answer, name) for name in effect.HEADERS})
    return Record(
        question=question.id,
        model=subject.model,
        right=not error and asking.right(question, text),
        error=error,
        seconds=round(answer.seconds, 3),
        calls=evidence.number(answer, "upstream-calls")
        if subject.strategy
        else int(answer.status != 0),
        # for a failed request, the guard reports the sum only
        prompt_tokens=tokens["prompt"]
        or (0 if tokens["total"] else evidence.number(answer, "tokens")),
        completion_tokens=tokens["completion"],
        answer=text if keep and not error else None,
        sample=request.sample,
        final=None if subject.strategy or error else _digest(question, text),
        completions=evidence.number(answer, "upstream-completions") or None,
        effect=given.level or None,
        codes=given.codes,
    )


def _digest(question: Question, text: str) -> str:
    """A digest of the final answer, "" if there is none: a file without texts can be voted on."""
    final = asking.final_answer(question, text)
    return hashlib.sha256(final.encode()).hexdigest()[:16] if final else ""


@dataclass(frozen=True)
class Terms:
    """How the questions of a comparison are asked.

    `timeout`: seconds per request; None: as the deployment's own. `budget`: tokens in total,
    earlier runs included. `keep`: keep the texts of the answers. `remedy`: what to do if nothing
    answers.
    """

    timeout: float | None
    budget: int | None
    keep: bool
    remedy: str


def ask(
    comparison: Comparison, config: Config, keys: Keys, terms: Terms, say: Callable[[str], None]
) -> bool:
    """Send the requests that are left; False if the budget stopped the comparison.

    Each answer is on disk before the next request. `say` receives a progress line for each finished
    request.

    Raises:
        OptictlError: too many consecutive requests failed, or the file cannot be written.
        Locked: another optictl writes the file.
    """
    try:
        with files.appending(comparison.file) as append:
            if not comparison.records and not files.read(comparison.file):
                append(comparison.header.line())
            return _ask(comparison, config, keys, terms, append, say)
    except Locked as holder:
        raise Locked(
            str(holder), remedy="wait for it, or name another file with --resume"
        ) from None
    except OSError as error:
        raise of_os(error).reworded(
            f"cannot write the answers: {os_words(error)}", "name another file with --resume"
        ) from None


def _ask(
    comparison: Comparison,
    config: Config,
    keys: Keys,
    terms: Terms,
    append: Callable[[str], None],
    say: Callable[[str], None],
) -> bool:
    _refuse_down(comparison, config, terms)
    failures, course = 0, _Course(comparison)
    for request in course.requests():
        model = request.subject.model
        if course.is_out(model):
            continue
        if not comparison.fits(request, terms.budget):
            return False
        response = _answer(request, config, keys, terms)
        answered = record(request, response, terms.keep)
        append(answered.line())
        comparison.records.append(answered)
        failures = failures + 1 if answered.error else 0
        course.note(request.subject, answered)
        out = "; it is not asked again" if answered.error and course.is_out(model) else ""
        say(f"{model}: {answered.error or ('right' if answered.right else 'wrong')}{out}")
        if not response.status:
            _stop_if_down(request.subject, config, terms)
        if failures == FAILURES_IN_A_ROW or course.nothing_left:
            what = f"{failures} consecutive requests failed"
            if course.nothing_left:
                what = f"{model} failed, and without it there is nothing left to compare"
            raise RequestsFailed(what, remedy=terms.remedy, detail=f"{model}: {answered.error}")
    return True


class _Course:
    """The requests of one run in their order, and which models are out.

    The first request of each model comes first of all. A model that fails it is out: whatever is
    wrong with it costs one request. Later, a model is out after several failures in a row.
    """

    def __init__(self, comparison: Comparison) -> None:
        self._comparison = comparison
        known = {r.model for r in comparison.records if not r.error}
        self._unproven = {s.model for s in comparison.subjects} - known
        self._failures = Counter[str]()
        self._out: set[str] = set()

    def requests(self) -> Iterator[Request]:
        """The requests that are left. The number of samples is known after the strategies'."""
        comparison = self._comparison
        left = summary.left(comparison.subjects, comparison.questions, comparison.records)
        # stable: beside that, the order of the questions stays
        place: dict[str, str] = {}
        for subject, question in left:
            if subject.model in self._unproven:
                place.setdefault(subject.model, question.id)
        for subject, question in sorted(
            left, key=lambda pair: place.get(pair[0].model) != pair[1].id
        ):
            yield Request(subject, question)
        # a plain request that failed is no sample
        yield from comparison.samples()

    def is_out(self, model: str) -> bool:
        return model in self._out

    def note(self, subject: Subject, answered: Record) -> None:
        """Take note of a request that ended."""
        model = subject.model
        if not answered.error:
            self._unproven.discard(model)
            self._failures[model] = 0
            return
        self._failures[model] += 1
        if model in self._unproven or self._failures[model] == FAILURES_IN_A_ROW:
            self._out.add(model)
            if not subject.strategy and model in self._unproven:
                # strategies are compared with it
                self._out |= {s.model for s in self._of(model)}

    def _of(self, base_model: str) -> list[Subject]:
        return [s for s in self._comparison.subjects if s.base_model == base_model and s.strategy]

    @property
    def nothing_left(self) -> bool:
        """Whether no model was proven that could be compared with another one."""
        plain = [s for s in self._comparison.subjects if not s.strategy]
        return all(
            (of := self._of(s.model) or [s])
            and all(one.model in self._out and one.model in self._unproven for one in of)
            for s in plain
        )


def _refuse_down(comparison: Comparison, config: Config, terms: Terms) -> None:
    """Raise RequestsFailed before a token is spent, if strategies are asked and none can answer."""
    strategy = next((r.subject for r in comparison.left if r.subject.strategy), None)
    if strategy is not None:
        _stop_if_down(strategy, config, terms)


def _stop_if_down(subject: Subject, config: Config, terms: Terms) -> None:
    """Raise RequestsFailed if the server of a model does not answer at all."""
    name, url = ("the proxy", config.url) if subject.strategy else _litellm(config)
    # without a key: an answer of any status will do
    answer = network.request("GET", f"{url}/models", timeout=_DOWN_TIMEOUT)
    if not answer.status:
        raise RequestsFailed(
            f"{name} at {url} does not answer", remedy=terms.remedy, detail=answer.error
        )


def _litellm(config: Config) -> tuple[str, str]:
    return "LiteLLM", config.upstream.base_url


def _answer(request: Request, config: Config, keys: Keys, terms: Terms) -> Response:
    subject = request.subject
    url, key = (
        (config.url, keys.proxy) if subject.strategy else (config.upstream.base_url, keys.upstream)
    )
    messages = list(request.question.messages)
    body: dict[str, Any] = {"model": subject.model, "messages": messages}
    if request.sample > 1:
        # LiteLLM's response cache would give the same sample again
        body["cache"] = {"no-cache": True}
    timeout = terms.timeout or patience(config)
    return network.request("POST", f"{url}/chat/completions", key=key, body=body, timeout=timeout)
