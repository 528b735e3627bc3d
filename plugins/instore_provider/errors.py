"""
Every error of this provider, grouped by what happens next.

    AirflowException
    └── ProviderError
        ├── ConfigurationError   fatal: a person corrects the connection or the setting. The task fails without
        │                        retries, because it is an AirflowFailException as well.
        ├── ServiceUnavailable   retriable: the service could not be reached or asked for patience, and the
        │   │                    hook's own retries are used up. Airflow tries the task again.
        │   └── CardNotAnswered  set aside: there is no answer about this card; there may be about others
        └── EventRefused         set aside: the service refuses the content of these events. Raised after all
                                 the others were sent; a retry does not help, so there is none.

A message is one sentence which names the connection, the field and the remedy. None holds a key, an email address,
a card number, a payload, or a URL, since a URL may hold any of them.
"""

from __future__ import annotations

from airflow.sdk.exceptions import AirflowException, AirflowFailException

__all__ = ["CardNotAnswered", "ConfigurationError", "EventRefused", "ProviderError", "ServiceUnavailable"]


class ProviderError(AirflowException):
    """Anything that this provider raises on purpose."""


class ConfigurationError(ProviderError, AirflowFailException):
    """The connection or a setting is wrong: stop, correct it, run again. Nothing was refused or marked."""


class ServiceUnavailable(ProviderError):
    """
    The service did not answer, or asked for a pause; the same call may work later.

    :param retry_after: seconds after which the service itself said it can be asked again; None when it did not say.
    :param code: what came instead of an answer, in a word: `answered_500`, `answered_200_not_json`, `no_answer`;
        `circuit_open`: it was not asked.
    """

    def __init__(self, message: str = "", *, retry_after: float | None = None, code: str = "") -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.code = code


class CardNotAnswered(ServiceUnavailable):
    """
    The provider gave no answer about this card. That says nothing about the card, so do not mark it as unknown.

    :param code: what came instead, in a word, such as `answered_400` or `another_card`.
    :param passing: whether it may pass by itself; otherwise a person has to look, if all cards are answered so.
    """

    def __init__(self, message: str, *, code: str, passing: bool, retry_after: float | None = None) -> None:
        super().__init__(message, retry_after=retry_after, code=code)
        self.passing = passing


class EventRefused(ProviderError, AirflowFailException):
    """The service refused events for what they are; they are set aside and the others have been sent."""


def said_of_this_connection(error: ProviderError, conn_id: str) -> str:
    """Return the sentence without the id: what Airflow's Test button tests is a copy, under an id made up for it."""
    return str(error).replace(f"Connection {conn_id!r}", "This connection")
