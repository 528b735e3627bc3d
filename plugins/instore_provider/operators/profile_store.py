"""Sending tracking events from a DAG."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, overload
from uuid import UUID, uuid5

from airflow.sdk import BaseOperator, XComArg

from instore_provider.errors import ConfigurationError, EventRefused, ServiceUnavailable
from instore_provider.links import EventsPageLink

if TYPE_CHECKING:
    from airflow.sdk import Context

    # At run time the hook is imported by the task: a DAG file is parsed again for every task.
    from instore_provider.events import EventOutcome
    from instore_provider.hooks.profile_store import Looked, ProfileStoreHook

__all__ = ["AmbiguousPolicy", "ProfileStoreTrackOperator", "SealedEvents", "with_track_id"]

AmbiguousPolicy = Literal["verify", "resend", "hold"]

TRACK_ID_NAMESPACE = UUID("6f0d3a52-53b1-5d1e-9a0e-6f6a0f3c7a11")

_POLICIES = ("verify", "resend", "hold")
_MEMORY = "profile_store_track"
_NAMED = 20
"""Refused events named in the log and in the error."""


class SealedEvents(Sequence[Mapping[str, Any]]):
    """
    A list of events which shows nothing but its length.

    Airflow stores the rendered value of a template field for everybody who may see the task, and the literal value in
    the serialized DAG; it stores this one as "3 events (not shown)". Nor does it look for Jinja inside: an order that
    holds "{{" is data, not a template.
    """

    def __init__(self, events: Sequence[Mapping[str, Any]]) -> None:
        if isinstance(events, (str, bytes, Mapping)) or not isinstance(events, Sequence):
            raise TypeError(f"events must be a list of events or an XComArg, not {type(events).__name__}")
        if not all(isinstance(event, Mapping) for event in events):
            raise TypeError("events must hold mappings only")
        self._events = tuple(events)

    def __len__(self) -> int:
        return len(self._events)

    @overload
    def __getitem__(self, index: int) -> Mapping[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Mapping[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> Mapping[str, Any] | Sequence[Mapping[str, Any]]:
        return self._events[index]

    def __repr__(self) -> str:
        return f"{len(self)} events (not shown)"


class ProfileStoreTrackOperator(BaseOperator):
    """
    Send tracking events to the Profile Store.

    Returns the counts `events`, `accepted`, `refused`, `unsent` and `ambiguous`, also where the task fails; no event
    goes to XCom. Refused events are named by their index in `events`.

    Retries are safe: an event without a `trackId` gets one made from its content, and what an earlier try of the task
    had accepted is not sent again. The task fails without retries when the connection is wrong, or, after all else was
    sent, when events were refused; it is retried when the service could not take them all.

    :param events: bodies of Track, a list or an XComArg; neither rendered nor shown. Airflow itself shows them in two
        places out of reach: an upstream `@task` logs what it returns unless it has `show_return_value_in_logs=False`,
        and a literal list given to `expand` is in the serialized DAG in clear.
    :param profile_store_conn_id: connection of type `profile_store`.
    :param bulk_size: events per request, at most 100; 1 sends each by itself, to Track instead of TrackBulk.
    :param on_ambiguous: an event that may have been taken (502, no answer) is, by `verify`, looked for in the Profile
        Store and sent again if it does not show, for which the connection needs `read_host` (where the answer is
        unclear, it is not sent again, and the task is retried); by `resend`, sent again at once; by `hold`, not sent
        again and counted.
    :param verify_after: seconds that `verify` waits for such an event to show, since ingest is asynchronous.
    :param verify_every: seconds between two looks of `verify`.
    :param enable: False sends nothing and counts all as unsent.
    :param fail_on_refused: False ends green in spite of refused events.
    :param hook_params: further arguments of `ProfileStoreHook`.
    """

    template_fields: Sequence[str] = ("events", "profile_store_conn_id")
    operator_extra_links = (EventsPageLink(),)
    ui_color = "#d5e8d4"

    def __init__(
        self,
        *,
        events: Sequence[Mapping[str, Any]] | XComArg,
        profile_store_conn_id: str = "profile_store_default",
        bulk_size: int = 100,
        on_ambiguous: AmbiguousPolicy = "verify",
        verify_after: float = 60.0,
        verify_every: float = 5.0,
        enable: bool = True,
        fail_on_refused: bool = True,
        hook_params: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if on_ambiguous not in _POLICIES:
            raise ValueError(f"on_ambiguous must be one of {', '.join(_POLICIES)}")
        self.events = events
        self.profile_store_conn_id = profile_store_conn_id
        self.bulk_size = bulk_size
        self.on_ambiguous = on_ambiguous
        self.verify_after = verify_after
        self.verify_every = verify_every
        self.enable = enable
        self.fail_on_refused = fail_on_refused
        self.hook_params = dict(hook_params or {})

    @property
    def events(self) -> Sequence[Mapping[str, Any]] | XComArg:
        """The events, sealed; or the XComArg they will come from."""
        return self._events

    @events.setter
    def events(self, value: Sequence[Mapping[str, Any]] | XComArg) -> None:
        self._events = value if isinstance(value, XComArg) else SealedEvents(value)

    def execute(self, context: Context) -> dict[str, int]:
        """
        Send the events.

        :raises ServiceUnavailable: some were not taken; Airflow retries.
        :raises ConfigurationError: a person must correct something first; no retries.
        :raises EventRefused: all others were sent; no retries.
        """
        from instore_provider.hooks.profile_store import ProfileStoreHook

        assert not isinstance(self.events, XComArg)  # noqa: S101 - Airflow has resolved it by now
        tally = _Tally([with_track_id(event) for event in self.events])
        if not self.enable:
            self.log.info("Tracking is switched off (enable=False): none of %d events was sent", len(self.events))
            return tally.counts()

        store = context.get("task_state_store")
        hook = ProfileStoreHook(self.profile_store_conn_id, **self.hook_params)
        try:
            found = store.get(_MEMORY) if store is not None else None
            if isinstance(found, dict):
                tally.resume(found)
            self._send(hook, tally, tally.indexes("unsent"))
            if not tally.indexes("unsent"):  # else the service is not well, and the next try settles the rest
                self._settle(hook, tally)
                self._send(hook, tally, tally.indexes("unsent"))
            counts = tally.counts()
            self.log.info("Profile Store: %s", ", ".join(f"{count} {name}" for name, count in counts.items()))
            self._conclude(tally, counts)
        except Exception:
            # A task that fails pushes nothing by itself, and that is when the counts are wanted most.
            context["ti"].xcom_push(key="return_value", value=tally.counts())
            raise
        finally:
            hook.close()
            if store is not None and (tally.indexes("unsent") or tally.indexes("ambiguous")):
                store.set(_MEMORY, tally.memory())
            elif store is not None:
                store.delete(_MEMORY)
        return counts

    def _send(self, hook: ProfileStoreHook, tally: _Tally, indexes: Sequence[int]) -> None:
        if not indexes:
            return

        def leaving(part: Sequence[int]) -> None:
            tally.in_flight.update(indexes[each] for each in part)

        leave = [tally.events[index] for index in indexes]
        sent = hook.send_events(leave, bulk_size=self.bulk_size, before_request=leaving)
        try:
            for outcome in sent:
                self._note(tally, [replace(outcome, index=indexes[outcome.index])])
        except ConfigurationError:
            tally.in_flight.clear()  # the hook promises that these were not taken
            raise

    def _settle(self, hook: ProfileStoreHook, tally: _Tally) -> None:
        """Find out about ambiguous events as the policy says; those to be sent again are unsent afterwards."""
        ambiguous = tally.indexes("ambiguous")
        if not ambiguous or self.on_ambiguous == "hold":
            return
        looked: dict[str, Looked] = {tally.track_id(index): "absent" for index in ambiguous}
        if self.on_ambiguous == "verify":
            self.log.warning("%d events may have been taken: looking for them in the Profile Store", len(ambiguous))
            looked = self._wait_for(hook, set(looked))
            # Whether they were taken is not known, so they are neither sent again nor counted as sent.
            ambiguous = [index for index in ambiguous if looked[tally.track_id(index)] in ("shown", "absent")]
        shown = {track_id for track_id, found in looked.items() if found == "shown"}
        self._note(tally, list(tally.settled(ambiguous, shown)))

    def _wait_for(self, hook: ProfileStoreHook, track_ids: set[str]) -> dict[str, Looked]:
        """Return what was last said of each, after looking for `verify_after` seconds or until all are shown."""
        from tenacity import Retrying, retry_if_result, stop_before_delay, wait_fixed

        looked: dict[str, Looked] = {}

        def look() -> bool:
            looked.update(hook.look_for_events(each for each in track_ids if looked.get(each) != "shown"))
            return all(looked[each] == "shown" for each in track_ids)

        retrying = Retrying(
            stop=stop_before_delay(self.verify_after + 1e-3),
            wait=wait_fixed(max(0.01, min(self.verify_every, self.verify_after))),
            retry=retry_if_result(lambda all_shown: not all_shown),
            retry_error_callback=lambda _: False,
        )
        retrying(look)
        return looked

    def _note(self, tally: _Tally, outcomes: Sequence[EventOutcome]) -> None:
        named = len(tally.indexes("refused"))
        tally.note(outcomes)
        for outcome in [each for each in outcomes if each.state == "refused"][: max(0, _NAMED - named)]:
            self.log.warning(
                "Refused: events[%d], trackId %s, status %s: %s",
                outcome.index, outcome.track_id, outcome.status_code, outcome.detail,
            )  # fmt: skip

    def _conclude(self, tally: _Tally, counts: Mapping[str, int]) -> None:
        waiting = counts["unsent"] + (0 if self.on_ambiguous == "hold" else counts["ambiguous"])
        if waiting:
            raise ServiceUnavailable(
                f"Connection {self.profile_store_conn_id!r}: {waiting} of {counts['events']} events are not sent "
                f"({tally.reason()}), so try the task again.",
                retry_after=tally.retry_after(),
            )
        if (refused := tally.indexes("refused")) and self.fail_on_refused:
            named = ", ".join(f"events[{index}]" for index in refused[:_NAMED])
            more = f" and {len(refused) - _NAMED} more" if len(refused) > _NAMED else ""
            raise EventRefused(
                f"Connection {self.profile_store_conn_id!r}: the Profile Store refused {counts['refused']} of "
                f"{counts['events']} events, {named}{more}, so correct them as the log says, or set "
                "fail_on_refused=False."
            )


class _Tally:
    """What is known of each event so far; one of which nothing is known is unsent."""

    def __init__(self, events: Sequence[Mapping[str, Any]]) -> None:
        self.events = events
        self.outcomes: dict[int, EventOutcome] = {}
        self.in_flight: set[int] = set()

    def note(self, outcomes: Sequence[EventOutcome]) -> None:
        for outcome in outcomes:
            self.outcomes[outcome.index] = outcome
            self.in_flight.discard(outcome.index)

    def track_id(self, index: int) -> str:
        return str(self.events[index].get("trackId") or "")

    def state(self, index: int) -> str:
        return self.outcomes[index].state if index in self.outcomes else "unsent"

    def indexes(self, state: str) -> list[int]:
        return [index for index in range(len(self.events)) if self.state(index) == state]

    def counts(self) -> dict[str, int]:
        states = ("accepted", "refused", "unsent", "ambiguous")
        return {"events": len(self.events), **{state: len(self.indexes(state)) for state in states}}

    def memory(self) -> dict[str, Any]:
        # What was under way when the task was stopped may have been taken as well.
        ambiguous = {*self.indexes("ambiguous"), *self.in_flight}
        return {
            "accepted": [self.track_id(index) for index in self.indexes("accepted")],
            "ambiguous": [self.track_id(index) for index in sorted(ambiguous)],
        }

    def resume(self, memory: Mapping[str, Any]) -> None:
        from instore_provider.events import EventOutcome

        accepted, ambiguous = set(memory.get("accepted", ())), set(memory.get("ambiguous", ()))
        for index in range(len(self.events)):
            track_id = self.track_id(index)
            if track_id in accepted:
                self.outcomes[index] = EventOutcome(index, track_id, "accepted", detail="by an earlier try")
            elif track_id in ambiguous:
                self.outcomes[index] = EventOutcome(index, track_id, "ambiguous", detail="by an earlier try")

    def settled(self, indexes: Sequence[int], shown: set[str]) -> Iterator[EventOutcome]:
        from instore_provider.events import EventOutcome

        for index in indexes:
            track_id = self.track_id(index)
            if track_id in shown:
                yield EventOutcome(index, track_id, "accepted", detail="found in the Profile Store")
            else:
                yield EventOutcome(index, track_id, "unsent", detail="to be sent again")

    def retry_after(self) -> float | None:
        return max((each.retry_after for each in self.outcomes.values() if each.retry_after is not None), default=None)

    def reason(self) -> str:
        for outcome in self.outcomes.values():
            if outcome.state in ("unsent", "ambiguous") and outcome.detail:
                return outcome.detail
        return "not tried"


def with_track_id(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return an event with a trackId: its own, or one made from its content, the same on every try."""
    import simplejson

    if event.get("trackId"):
        return dict(event)
    try:
        canonical = simplejson.dumps(dict(event), use_decimal=True, sort_keys=True, separators=(",", ":"))
    except (TypeError, ValueError, OverflowError, RecursionError):
        return dict(event)  # the hook refuses it and says why
    return {**event, "trackId": str(uuid5(TRACK_ID_NAMESPACE, canonical))}
