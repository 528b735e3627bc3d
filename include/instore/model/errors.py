"""Everything the pipeline raises on purpose, grouped by what happens next.

    InStoreError
    ├── FatalError            stop the run: a person has to change something; never retried
    │   └── ConfigurationError   a connection or setting is missing or wrong
    ├── RetriableError        the same call may work later; the task is tried again
    ├── CardNotAnswered       there is no answer about this one card; it is asked for again later, the run goes on
    └── RecordRefused         this one record is set aside with a machine reason; the run goes on

Every message is one sentence for a person: it names the connection, setting, file or field, and the remedy.
None of them carries an email address, a loyalty card, a key or a payload.
"""

from __future__ import annotations

from include.instore.model.codes import code_of


class InStoreError(Exception):
    """Root of the pipeline's own errors."""


class FatalError(InStoreError):
    """Trying again cannot help. The run stops and a person changes something."""


class ConfigurationError(FatalError):
    """A connection or a setting is missing or wrong; the message names it and says what to do."""


class RetriableError(InStoreError):
    """An outside service or the disk failed for now. What was not done stays in the ledger or on the bus.

    :param retry_after: seconds that the service asked to wait, or None when it did not say.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class CardNotAnswered(InStoreError):
    """What came when a card was asked for says nothing about it.

    :param code: what came instead, such as ``answered_400``.
    :param passing: whether it may pass by itself, such as ``answered_500``; otherwise a person has to look, where it
        comes for many cards.
    """

    def __init__(self, message: str, *, code: str, passing: bool) -> None:
        super().__init__(message)
        code_of(code)
        self.code = code
        self.passing = passing


class RecordRefused(InStoreError):
    """One message or row is not an order by the contract (contracts.md section 1).

    :param reason: the code that is dead-letter reason and quarantine code alike, e.g. ``missing_field``.
    :param detail: which field and which rule, never the value itself.
    :raises KeyError: the reason is no code.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = str(code_of(reason))
        self.detail = detail
