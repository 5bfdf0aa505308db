"""Accounting: each upstream call belongs to a request.

`upstream.Upstream.post` records a call when it leaves the process. This includes retries of the
SDK. A context variable holds the request of a call. The strategy's client sets it in the thread
that makes the call.
"""

from __future__ import annotations

import contextvars
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from .answers import Answer
from .carried import Carried
from .conversation import Conversation
from .events import Sink
from .exchanges import Run
from .judgement import Judgement
from .live import Live
from .parameters import Parameters
from .settings import ANSWER_TOKENS, PARALLEL_CALLS
from .strategy_options import Chosen

#: Statuses with which an upstream refuses a request for what it is. 401, 403 and 404 are about the
#: way to the model.
REFUSALS = (400, 413, 422)


class Abort(BaseException):
    """Ends a strategy at once, with a status, a code and a message for the client.

    It is not an `Exception`: OptiLLM's strategies catch those, retry, and may answer 200 with an
    error text.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


@dataclass
class Call:
    """An upstream call. `seconds`: wall time. `status`: 0 without a response.

    `reason`: why it failed, in one word: timeout, connection, ended (its request ended first), or
    the class of the status.
    """

    model: str
    status: int = 0
    seconds: float = 0.0
    completions: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    cached_tokens: int = 0
    error: str = ""
    retry_after: str = ""
    reason: str = ""
    #: the code in an error of the upstream
    code: str = ""
    #: the samples that were asked for
    asked: int = 1
    purpose: str = ""
    #: an answer of the model ended at the token limit
    truncated: bool = False
    #: a content filter ended an answer of the model
    filtered: bool = False
    #: no answer of the model has a text
    empty: bool = False
    #: the number of its thread, from 0 in each request; calls of different threads may overlap
    thread: int = 0
    #: its place among the calls of its request, from 0
    place: int = 0
    #: prompt and answers; empty unless the request keeps contents
    messages: list[Any] = field(default_factory=list, repr=False)
    answers: list[Any] = field(default_factory=list, repr=False)
    is_open: bool = True
    #: the guard asked for a stream, and reads it as a whole completion
    is_streamed: bool = False
    #: seconds of the monotonic clock
    started: float = field(default_factory=time.monotonic)

    @property
    def failed(self) -> bool:
        return not 200 <= self.status < 300


@dataclass(frozen=True)
class Sending:
    """How a call is sent.

    `timeout`: the longest wait for the next byte, in seconds; None: the rest of the request's time.
    `places`: where the places of its calls are added (retries are calls, too). `sink`: gets the
    text as the model writes it. `is_whole`: without a stream, in which LiteLLM loses fields.
    `purpose`: that of the call (see `traces`), "" if it is not known.
    """

    timeout: float | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    places: list[int] = field(default_factory=list)
    sink: Sink | None = None
    purpose: str = ""
    is_whole: bool = False


@dataclass
class Request:
    """A client's request and its upstream calls. Times are in seconds."""

    strategy: str
    base_model: str
    max_calls: int
    timeout: float
    #: the client's limit for the tokens of an answer, 0 without one
    max_tokens: int = 0
    carried: Carried = field(default_factory=Carried, repr=False)
    #: the limit for a client that sends none
    answer_tokens: int = ANSWER_TOKENS
    #: the keys of `optictl.yaml` whose limits cut the answer
    limited_by: list[str] = field(default_factory=list)
    #: what the client said
    conversation: Conversation = field(default=Conversation("", ""), repr=False)
    parameters: Parameters = field(default_factory=Parameters, repr=False)
    #: the options of the strategy
    options: Chosen = field(default=Chosen("", {}), repr=False)
    #: upstream calls at the same time
    parallel_calls: int = PARALLEL_CALLS
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    started: float = field(default_factory=time.monotonic)
    calls: list[Call] = field(default_factory=list)
    aborted: Abort | None = None
    #: from start to answer; 0 while it runs
    seconds: float = 0.0
    #: Unix time
    began: float = field(default_factory=time.time)
    status: int = 0
    code: str = ""
    keeps_content: bool = False
    messages: list[Any] = field(default_factory=list, repr=False)
    answers: list[Any] = field(default_factory=list, repr=False)
    content_bytes: int = 0
    questions: set[int] = field(default_factory=set, repr=False)
    #: what a streaming client gets meanwhile
    live: Live | None = field(default=None, repr=False)
    #: the fix `votes` is on (see `patches`)
    votes_on_answers: bool = False
    #: the fixes that acted
    fixed: set[str] = field(default_factory=set)
    #: the answers of the runs that have ended: place of the run -> its answers
    finished: dict[int, list[Answer]] = field(default_factory=dict, repr=False)
    #: None where nothing can be judged
    judgement: Judgement | None = None
    #: the chain of requests that this one may belong to (see `loops`)
    chain_length: int = 0
    chain_started: float = 0.0
    _threads: dict[int, int] = field(default_factory=dict, repr=False)
    #: close the connections of the calls in flight
    _closers: list[Callable[[], None]] = field(default_factory=list, repr=False)
    _is_over: bool = False
    _changed: threading.Condition = field(default_factory=threading.Condition, repr=False)

    def __post_init__(self) -> None:
        self.chain_started = self.started

    def abort(self, reason: Abort) -> None:
        """End this request: its calls in flight are closed, and further ones refused.

        Only the first reason is kept. Any thread may call this, and it does not wait.
        """
        with self._changed:
            self.aborted = self.aborted or reason
        self._close_calls()

    def finish(self) -> None:
        """The strategy has ended: close what it left in flight."""
        with self._changed:
            self._is_over = True
        self._close_calls()

    def forget(self) -> None:
        """Drop what the client said and gets: a trace stays longer, and images are large."""
        self.conversation, self.parameters = Conversation("", ""), Parameters()
        self.finished = {}

    def _close_calls(self) -> None:
        with self._changed:
            closers = tuple(self._closers)
            self._changed.notify_all()
        for close in closers:
            close()

    def pause(self, seconds: float) -> None:
        """Wait, unless the request ends.

        Raises:
            Abort: it ended.
        """
        with self._changed:
            self._changed.wait_for(lambda: self.aborted is not None, min(seconds, self.remaining()))
            if self.aborted is not None:
                raise self.aborted

    @contextmanager
    def calling(self, call: Call, close: Callable[[], None]) -> Iterator[None]:
        """Record a call, which is in flight during the block. It waits until there is room for it.

        `close`: ends the call from another thread.

        Raises:
            Abort: the request has no calls or no time left, or was ended.
        """
        self._enter(call, close)
        try:
            yield
        finally:
            call.is_open = False
            with self._changed:
                self._closers.remove(close)
                self._changed.notify_all()

    def _enter(self, call: Call, close: Callable[[], None]) -> None:
        def has_room() -> bool:
            is_over = self._is_over or self.aborted is not None
            return is_over or len(self._closers) < self.parallel_calls

        with self._changed:
            self._changed.wait_for(has_room, max(self.remaining(), 0.0))
            if self._is_over and self.aborted is None:
                raise Abort(499, "request_over", "the request has its answer")
            is_late = self.remaining() <= 0
            if self.aborted is None and len(self.calls) >= self.max_calls:
                self.aborted = Abort(
                    400,  # no rate limit: the same request needs as many calls again
                    "upstream_call_limit",
                    f"the strategy needs more than {self.max_calls} upstream calls "
                    "(limits.max_upstream_calls)",
                )
            if is_late:
                self.aborted = self.aborted or self.too_late()
            if self.aborted is None:
                call.place, call.started = len(self.calls), time.monotonic()
                call.thread = self._threads.setdefault(threading.get_ident(), len(self._threads))
                self.calls.append(call)
                self._closers.append(close)
                return
        self._close_calls()  # the others of a request that has come to its limit
        raise self.aborted

    def may_keep(self, size: int, most: int) -> bool:
        """Whether to keep contents of `size` more bytes, at most `most` in all. Reserves them."""
        with self._changed:
            if not self.keeps_content or self.content_bytes + size > most:
                return False
            self.content_bytes += size
            return True

    def remaining(self) -> float:
        """Seconds until the deadline of the request. May be negative."""
        return self.started + self.timeout - time.monotonic()

    def too_late(self) -> Abort:
        """The error of a request at its deadline."""
        return Abort(
            504,
            "request_timeout",
            f"the strategy did not finish within {self.timeout:g} s (timeouts.request)",
        )

    @property
    def open_calls(self) -> int:
        """The number of upstream calls in flight."""
        return sum(call.is_open for call in list(self.calls))

    @property
    def failures(self) -> list[Call]:
        return [call for call in self.calls if call.failed]

    @property
    def cause(self) -> Call | None:
        """The call to blame when the strategy made no answer. None without a failure.

        It is the first one: after a 401, LiteLLM answers 429 for a while by itself. But a model
        that refuses a call for several samples may only refuse their number.
        """
        failures = self.failures
        if not failures:
            return None
        is_about_number = failures[0].asked > 1 and failures[0].status in REFUSALS
        later = (call for call in failures if is_about_number and call.asked == 1)
        return next(later, failures[0])

    @property
    def all_failed(self) -> bool:
        """Whether every upstream call failed. False without calls."""
        return len(self.failures) == len(self.calls) > 0

    @property
    def is_failing(self) -> bool:
        """Whether calls have ended, and all of them failed."""
        ended = [call for call in list(self.calls) if not call.is_open]
        return bool(ended) and all(call.failed for call in ended)

    def total(self, name: str) -> int:
        """The sum of a field of `Call` over all calls."""
        return sum(getattr(call, name) for call in self.calls)


#: the request and the run of the strategy in this thread
current: contextvars.ContextVar[tuple[Request, Run] | None] = contextvars.ContextVar(
    "current", default=None
)


@contextmanager
def attributed_to(request: Request, run: Run) -> Iterator[None]:
    """What this thread does within the block belongs to `run` of `request`."""
    token = current.set((request, run))
    try:
        yield
    finally:
        current.reset(token)
