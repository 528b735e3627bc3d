"""What happens after a task failed, by the kind of its error (include/instore/model/errors.py draws the tree).

    fatal        a person has to change something: the task fails at once. ``run_context`` raises these as
                 AirflowFailException, about which Airflow asks no policy; one that comes here is answered alike.
    retriable    tried again after what the service asked for (Retry-After), capped, and a little more so that not all
                 come back at once; or after a random time that may be twice as long each try (full jitter).
    anything     else is a bug or the machine's trouble (a lost worker, a full disk): tried again like a retriable one.

How often is the task's ``retries``: no policy reaches beyond it. What is set aside (a refused record or event) is no
failure of the task and never comes here.

Evaluated in the task's process; the scheduler only keeps that there is a policy.
"""

from __future__ import annotations

import random
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk.definitions.retry_policy import RetryDecision, RetryPolicy
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from include.instore.model.errors import FatalError

if TYPE_CHECKING:
    from airflow.sdk import Context


class TryAgain(AirflowException):
    """A retriable error of the pipeline, as Airflow shows it.

    :param retry_after: seconds after which the service can be asked again, or None when it did not say.
    """

    def __init__(self, message: str = "", retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RetryByKind(RetryPolicy):
    """Fails at once where a retry cannot help, and spreads all other retries."""

    def evaluate(
        self,
        exception: BaseException,
        try_number: int,
        max_tries: int,  # noqa: ARG002  Airflow keeps to it whatever is said here
        context: Context | None = None,  # noqa: ARG002
    ) -> RetryDecision:
        """Decide by the error; ``try_number`` is the one that failed, from 1."""
        from include.instore.model.settings import load_settings

        if isinstance(exception, FatalError | AirflowFailException):
            return RetryDecision.fail("A person has to change something first.")
        settings = load_settings().services
        asked = getattr(exception, "retry_after", None)
        if isinstance(asked, int | float) and asked >= 0:
            seconds = min(asked, settings.retry_after_max) + random.uniform(0, settings.retry_first_wait)  # noqa: S311
            return RetryDecision.retry(timedelta(seconds=seconds), f"The service asked for {asked:.0f} s.")
        widest = min(settings.retry_longest_wait, settings.retry_first_wait * 2.0 ** min(max(try_number, 1) - 1, 32))
        return RetryDecision.retry(
            timedelta(seconds=random.uniform(0, widest)),  # noqa: S311
            f"It may work later; a random time of up to {widest:.0f} s.",
        )

    def serialize(self) -> dict[str, Any]:
        """It has no parameters: the settings of the task's environment apply."""
        return {"__type": f"{__name__}.{type(self).__name__}"}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> RetryByKind:  # noqa: ARG003
        return cls()
