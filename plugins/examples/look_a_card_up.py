"""Look a loyalty card up."""

from __future__ import annotations

from airflow.sdk import dag, task


@dag(schedule=None, tags=["example"])
def look_a_card_up() -> None:
    @task
    def look_up() -> str:
        from contextlib import closing

        from instore_provider.hooks.loyalty import LoyaltyHook

        # A real DAG reads its cards where they are kept: everybody who may see the run sees its params and XComs.
        with closing(LoyaltyHook("loyalty_default")) as hook:
            answer = hook.look_up("6035770741165744")
        # `answer.email` has the address where the outcome is "matched"; it stays in this task.
        return answer.outcome

    look_up()


look_a_card_up()
