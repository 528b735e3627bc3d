"""What Airflow learns of the page "In-store orders"; the page itself is imported when it is first asked for."""

from __future__ import annotations

from typing import Any

from airflow.plugins_manager import AirflowPlugin

from include.instore_airflow.page_links import PREFIX, base_path


async def page(scope: Any, receive: Any, send: Any) -> None:
    """The page: plugins are loaded by every process of Airflow, and only the API server needs it."""
    from include.instore_airflow.page import app

    await app()(scope, receive, send)


class InStorePage(AirflowPlugin):
    """The page and its place in the menu."""

    name = "instore_page"
    fastapi_apps = [{"app": page, "url_prefix": PREFIX, "name": "In-store orders"}]  # noqa: RUF012
    external_views = [  # noqa: RUF012
        {
            "name": "In-store orders",
            "href": f"{base_path()}{PREFIX}/",
            "destination": "nav",
            "url_route": "instore",
        }
    ]
