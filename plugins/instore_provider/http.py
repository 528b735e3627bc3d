"""
One HTTP service behind one Airflow connection: session, timeouts, retries, and what an answer means for the caller.

A call ends in one of two values, never in an exception of the HTTP library, because those carry URLs:

* `Answer`: the service answered with a status;
* `NoAnswer`: it did not, and `left` tells whether the request may have reached it.

Only what no retry can heal is raised: a certificate that does not verify, a redirect, a refused key.
"""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from functools import cached_property
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Any

import requests
import simplejson
import urllib3.exceptions
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from tenacity import RetryCallState, Retrying, retry_if_result, stop_after_attempt, stop_before_delay
from tenacity.wait import wait_base, wait_random, wait_random_exponential

from instore_provider import __version__
from instore_provider.errors import ConfigurationError, ServiceUnavailable
from instore_provider.redaction import quiet_libraries, safe_detail

if TYPE_CHECKING:
    from instore_provider.breaker import Breaker

ASKS_FOR_PATIENCE = frozenset({408, 425, 429, 503})
"""A question that is answered so may be asked again. Whether a write was taken they do not all say."""

KEY_REFUSED = frozenset({401, 403})

_JSON = "application/json"
_LONGEST_BODY = 8 * 1024 * 1024
_ABSURD_RETRY_AFTER = 86_400.0
_POOL_SIZE = 32
_TRIAL_SECONDS = 0.1
"""While another thread tries whether the service is well again."""


@dataclass(frozen=True)
class RetryBounds:
    """
    How long one call is tried.

    :param attempts: calls at most, the first included.
    :param seconds: no attempt starts later than this after the first one.
    :param first_wait: seconds; the window of the random first wait, doubled at each further one (full jitter).
    :param longest_wait: seconds; no window grows wider.
    :param longest_retry_after: seconds; a Retry-After above it is waited for only this long.
    """

    attempts: int = 5
    seconds: float = 120.0
    first_wait: float = 0.5
    longest_wait: float = 30.0
    longest_retry_after: float = 60.0


@dataclass(frozen=True)
class Answer:
    """
    What the service answered.

    :param retry_after: seconds the service asked to wait, or None.
    :param whole: False when the body broke off or was too large; the status stands nevertheless.
    """

    status: int
    body: bytes = field(default=b"", repr=False)
    retry_after: float | None = None
    whole: bool = True

    @property
    def taken(self) -> bool:
        """Whether the service accepted the request."""
        return 200 <= self.status <= 299

    def told(self) -> str:
        """Return what happened in words for a log."""
        return f"answered {self.status}"

    @cached_property
    def json(self) -> Any:
        """The JSON of the body, its numbers as exact Decimals. :raises ValueError: there is none."""
        try:
            return simplejson.loads(self.body.decode("utf-8-sig"), use_decimal=True)
        except RecursionError:
            raise ValueError("nested too deeply") from None

    @property
    def is_json(self) -> bool:
        """Whether the body is complete, and JSON."""
        with suppress(ValueError):
            _ = self.json
            return self.whole
        return False


@dataclass(frozen=True)
class NoAnswer:
    """
    There was no answer.

    :param left: True when the request may have reached the service, False when no connection was made.
    :param reason: the kind of failure, as the HTTP library names it.
    """

    left: bool
    reason: str
    retry_after: float | None = None
    status: None = None

    def told(self) -> str:
        """Return what happened in words for a log."""
        return f"gave no answer ({self.reason})" if self.left else f"could not be reached ({self.reason})"


@dataclass(frozen=True)
class LeftAlone(NoAnswer):
    """The call was not made, because the breaker is open."""

    def told(self) -> str:
        """Return what happened in words for a log."""
        return f"was not called: {self.reason}"


Result = Answer | NoAnswer


@dataclass(kw_only=True, eq=False, repr=False)
class Service:
    """
    One service: its base URL, its credentials and its pool of kept-alive connections. Threads may share it.

    :param conn_id: the Airflow connection, for messages.
    :param name: the service's name for people, such as "the Tracking API".
    :param base_url: checked base URL without trailing slash.
    :param url_field: connection field the base URL came from, for messages.
    :param key_field: connection field the key came from, for messages.
    :param auth: adds the credentials to a request.
    :param connect_timeout: seconds until the connection must stand.
    :param read_timeout: seconds until the answer must begin, and again until it must be complete.
    :param ca_bundle: PEM file to verify TLS with; None for the system's. Verification has no off switch.
    :param key: never shown in details, even if the service repeats it.
    :param before_attempt: called before each request, such as a rate limiter.
    :param breaker: says when the service is not to be called; None: never.
    :param waits_out: a call that an open breaker keeps back waits until the service may be tried again, for at most
        twice as long as the breaker stays open, instead of ending at once.
    :param counts_questions: for the breaker a question fails once, however often it is asked again: one that cannot be
        answered, among others that are, is no trouble of the service.
    """

    conn_id: str
    name: str
    base_url: str
    url_field: str = "host"
    key_field: str = "password"
    auth: AuthBase
    connect_timeout: float = 5.0
    read_timeout: float = 30.0
    ca_bundle: str | None = None
    key: str = ""
    before_attempt: Callable[[], object] = lambda: None
    breaker: Breaker | None = None
    counts_questions: bool = False
    waits_out: bool = False

    def __post_init__(self) -> None:
        self.session = requests.Session()
        self.session.auth = self.auth
        self.session.headers.update({"Accept": _JSON, "User-Agent": f"instore-provider/{__version__}"})
        self.session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))  # shared by threads: keeps no state
        for scheme in ("https://", "http://"):
            self.session.mount(scheme, HTTPAdapter(pool_maxsize=_POOL_SIZE, max_retries=0))
        # Proxies and certificates of the environment once: at each request that is a quarter of its cost.
        found = self.session.merge_environment_settings(self.base_url, {}, None, self.ca_bundle or True, None)
        self.session.proxies, self.session.verify = found["proxies"], found["verify"]
        self.session.trust_env = False

    def __repr__(self) -> str:
        return f"<Service {self.name!r} of connection {self.conn_id!r}>"

    def close(self) -> None:
        """Close the kept-alive connections."""
        self.session.close()

    def call(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        content_type: str = _JSON,
        before_leaving: Callable[[], object] = lambda: None,
    ) -> Result:
        """
        Make one request, without retries.

        :param path: begins with a slash; its parts and its query are percent-encoded already.
        :param body: encoded as `content_type` says.
        :param before_leaving: called when nothing is left to wait for; when it raises, the request is not made.
        :raises ConfigurationError: TLS cannot be verified, or the URL cannot be asked.
        """
        if resting := self._resting():
            return resting  # without waiting for a turn
        self.before_attempt()
        if resting := self._resting():
            return resting
        before_leaving()
        headers = dict(self.session.headers) | ({} if body is None else {"Content-Type": content_type})
        request = requests.PreparedRequest()
        # Failures are raised after the except blocks: a chained context would carry the URL.
        with quiet_libraries():
            try:
                # Not `session.request`, which merges anew at each request what never changes here.
                request.prepare(method, self.base_url + path, headers, data=body, auth=self.auth)
                response = self.session.send(
                    request,
                    timeout=(self.connect_timeout, self.read_timeout),
                    proxies=self.session.proxies,
                    allow_redirects=False,
                    stream=True,
                )
            except (requests.RequestException, urllib3.exceptions.HTTPError, UnicodeError) as error:
                failure = failure_of(error)
            else:
                return self._answer(response)
        if failure is not None:
            return failure
        raise self.error(
            self.url_field,
            f"leads to {self.name}, whose TLS certificate could not be verified or whose URL is not valid, "
            "so correct it or set 'ca_bundle'",
        )

    def retried(
        self, call: Callable[[], Result], again: Callable[[Result], bool], bounds: RetryBounds
    ) -> tuple[Result, int]:
        """
        Make a call until `again` is false of its result or the bounds are reached; return the last and the count.

        An open breaker ends it, with `LeftAlone`: at once, or where it stays open longer than this service waits out.
        """

        def well(result: Result) -> bool | None:
            if isinstance(result, LeftAlone):
                return None
            if is_well := not (again(result) or _unwell(result)):
                return is_well
            if self.breaker is not None:
                self.breaker.last_answer = result.told()
            return False

        made = 0
        until: float | None = None

        def attempt() -> Result:
            nonlocal made, until
            made += 1
            if self.breaker is None:
                return call()
            counts = made == 1 or not self.counts_questions
            while True:
                result = self.breaker.watch(call, well, counts=counts) or self._left_alone(self.breaker)
                if not (self.waits_out and isinstance(result, LeftAlone)):
                    return result
                until = until or time.monotonic() + 2 * self.breaker.seconds
                if (left := until - time.monotonic()) <= 0:
                    return result
                time.sleep(min(left, max(result.retry_after or 0.0, _TRIAL_SECONDS)))

        retrying = Retrying(
            sleep=time.sleep if self.breaker is None else self.breaker.sleep,
            stop=stop_after_attempt(bounds.attempts) | stop_before_delay(bounds.seconds),
            wait=_WaitAsAsked(bounds),
            retry=retry_if_result(lambda result: again(result) and not isinstance(result, LeftAlone)),
            retry_error_callback=_last_result,
        )
        result: Result = retrying(attempt)
        if self.waits_out and again(result):
            result = self._resting() or result
        return result, int(retrying.statistics.get("attempt_number", 1))

    def read(
        self,
        method: str,
        path: str,
        body: bytes | None,
        bounds: RetryBounds,
        final: Callable[[Answer], bool] = lambda _: False,
        content_type: str = _JSON,
    ) -> Answer:
        """
        Ask a question, which may be asked again whatever happened to it.

        :param final: True for an answer that settles the question, whatever its status and body.
        :return: such an answer, a 3xx or 4xx, or a 2xx that is complete and JSON.
        :raises ServiceUnavailable: no such answer within the bounds.
        """

        def again(result: Result) -> bool:
            return isinstance(result, NoAnswer) or not (final(result) or _settles(result))

        result, attempts = self.retried(lambda: self.call(method, path, body, content_type), again, bounds)
        if isinstance(result, NoAnswer) or again(result):
            raise self.unavailable(result, attempts)
        return result

    def unavailable(self, result: Result, attempts: int) -> ServiceUnavailable:
        """Return the error of a service which did not give a usable answer in `attempts` calls."""
        what, code = result.told(), f"answered_{result.status}"
        if isinstance(result, Answer) and result.taken:
            what, code = f"{what} without a JSON body", f"{code}_not_json"
        if isinstance(result, NoAnswer):
            code = "circuit_open" if isinstance(result, LeftAlone) else "no_answer"
        if not isinstance(result, LeftAlone):
            what += f" in {attempts} attempt(s)"
        return ServiceUnavailable(
            f"Connection {self.conn_id!r}: {self.name} {what}, so try again later or check its field "
            f"{self.url_field!r}.",
            retry_after=result.retry_after,
            code=code,
        )

    def check_door(self, status: int) -> None:
        """
        Check that an answer came from behind the door.

        :raises ConfigurationError: the key was refused, or the base URL redirects.
        """
        if status in KEY_REFUSED:
            raise self.error(self.key_field, f"was refused by {self.name} ({status}), so put a valid key into it")
        if 300 <= status <= 399:
            raise self.error(
                self.url_field,
                f"leads to a redirect ({status}), which is never followed, so put the final base URL of "
                f"{self.name} into it",
            )

    def detail(self, answer: Answer, private: Iterable[str]) -> str:
        """Return the service's own words, without the key and the private texts; see `safe_detail`."""
        return safe_detail(answer.body, {self.key, *private})

    def error(self, field: str, remedy: str) -> ConfigurationError:
        """Return the error for a field of this service's connection."""
        return ConfigurationError(f"Connection {self.conn_id!r}: its field {field!r} {remedy}.")

    def _resting(self) -> LeftAlone | None:
        if self.breaker is None or self.breaker.rests_for() is None:
            return None
        return self._left_alone(self.breaker)

    def _left_alone(self, breaker: Breaker) -> LeftAlone:
        last = f" (the last one {breaker.last_answer})" if breaker.last_answer else ""
        return LeftAlone(False, f"circuit open after {breaker.failures} failures in a row{last}", breaker.rests_for())

    def _answer(self, response: requests.Response) -> Answer:
        body, whole = _read_body(response, self.read_timeout)
        retry_after = parse_retry_after(response.headers.get("Retry-After"))
        return Answer(response.status_code, body, retry_after, whole)


def parse_retry_after(value: str | None, now: datetime | None = None) -> float | None:
    """
    Return the seconds that a Retry-After header asks for (RFC 9110, 10.2.3), or None.

    Garbage, the past and more than a day are no answer: None.
    """
    if value is None:
        return None
    value = value.strip()
    if re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,6})?", value):
        seconds = float(value)
    else:
        try:
            moment = parsedate_to_datetime(value)
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
        if moment.tzinfo is None:  # "-0000": UTC, of an unknown place
            moment = moment.replace(tzinfo=timezone.utc)
        seconds = (moment - (now or datetime.now(timezone.utc))).total_seconds()
    return seconds if 0 <= seconds <= _ABSURD_RETRY_AFTER else None


def failure_of(error: Exception) -> NoAnswer | None:
    """Return what an exception of the HTTP libraries means; None when only a person can correct it."""
    causes = list(_causes(error))
    if any(isinstance(each, ssl.SSLCertVerificationError) for each in causes):
        return None
    never_left = (
        urllib3.exceptions.NewConnectionError,
        urllib3.exceptions.ConnectTimeoutError,
        urllib3.exceptions.ProxyError,
        requests.ConnectTimeout,
    )
    if any(isinstance(each, never_left) for each in causes):
        return NoAnswer(left=False, reason=type(causes[-1]).__name__)
    if isinstance(error, ValueError):  # how requests marks what it could not even make a request of
        return None
    return NoAnswer(left=True, reason=type(causes[-1]).__name__)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Walk from an exception of requests to the one of urllib3 or the socket that is its reason."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        inner = [getattr(current, "reason", None), *current.args]
        current = next((each for each in inner if isinstance(each, BaseException)), None)


def _read_body(response: requests.Response, seconds: float) -> tuple[bytes, bool]:
    """Read an answer's body as it arrives; a trickle, a break and an endless one end as "not whole"."""
    body = bytearray()
    deadline = time.monotonic() + seconds
    try:
        while piece := response.raw.read1(65_536, decode_content=True):
            body += piece
            if len(body) > _LONGEST_BODY or time.monotonic() > deadline:
                response.close()
                return bytes(body), False
    except (urllib3.exceptions.HTTPError, OSError):
        response.close()
        return bytes(body), False
    response.raw.release_conn()
    return bytes(body), True


def _settles(answer: Answer) -> bool:
    if answer.status in ASKS_FOR_PATIENCE or answer.status >= 500:
        return False
    if not answer.taken:
        return True
    return answer.is_json


def _unwell(result: Result) -> bool:
    """Whether a result shows a service in trouble, also where the call is not to be made again."""
    return isinstance(result, NoAnswer) or result.status >= 500 or result.status in ASKS_FOR_PATIENCE


def _last_result(state: RetryCallState) -> Any:
    assert state.outcome is not None  # noqa: S101 - tenacity calls this after an attempt
    return state.outcome.result()


class _WaitAsAsked(wait_base):
    """Full jitter; or what the service asked for, up to a bound, and a little more so that not all return at once."""

    def __init__(self, bounds: RetryBounds) -> None:
        self._full_jitter = wait_random_exponential(multiplier=bounds.first_wait, max=bounds.longest_wait)
        self._little_jitter = wait_random(0, bounds.first_wait)
        self._longest_retry_after = bounds.longest_retry_after

    def __call__(self, retry_state: RetryCallState) -> float:
        asked: float | None = _last_result(retry_state).retry_after
        if asked is None:
            return self._full_jitter(retry_state)
        return min(asked, self._longest_retry_after) + self._little_jitter(retry_state)
