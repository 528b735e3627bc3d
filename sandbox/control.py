"""The part of every HTTP stand-in that is not the service: /sandbox/faults and /sandbox/state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.types import ASGIApp

from .calls import CallCounts
from .fault_injection import FaultInjection, Subjects
from .faults import Faults, SettingsT


def with_sandbox_controls(
    service: FastAPI,
    *,
    faults: Faults[SettingsT],
    templates: Sequence[str],
    subjects: Subjects,
    state: Callable[[], dict[str, Any]],
) -> ASGIApp:
    """Return the service with its fault knobs, its call counts and its state in reach.

    templates: the paths of the service, which name its calls in the counts.
    subjects: see FaultInjection.
    state: the service's own counts, merged into the reply of GET /sandbox/state beside "calls".
    """
    calls = CallCounts(templates)

    @service.get("/sandbox/state")
    async def read_state() -> Response:
        return JSONResponse({**state(), "calls": calls.as_json()})

    @service.get("/sandbox/faults")
    async def read_faults() -> Response:
        return JSONResponse(faults.settings.model_dump(mode="json"))

    @service.put("/sandbox/faults")
    async def replace_faults(request: Request) -> Response:
        try:
            settings = type(faults.settings).model_validate_json(await request.body())
        except ValidationError as error:
            problems = [
                {"setting": ".".join(str(part) for part in problem["loc"]), "problem": problem["msg"]}
                for problem in error.errors(include_input=False, include_url=False, include_context=False)
            ]
            return JSONResponse({"code": "bad_faults", "problems": problems}, status_code=400)
        faults.replace(settings)
        return JSONResponse(settings.model_dump(mode="json"))

    return FaultInjection(service, faults, calls, subjects)
