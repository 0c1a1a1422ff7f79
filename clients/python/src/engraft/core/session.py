"""Requests that are repeated until they are answered, and answers as types."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import quote

from pydantic import ValidationError

from ..errors import ConnectionFailed, EngraftError, UnexpectedAnswer, api_error
from ..types import Model, Page, Problem
from .retry import PASSING, Pauses, Retry, wish
from .transport import Answer, Lost, Query, Request, Transport

M = TypeVar("M", bound=Model)

HOLD = 50
"""Seconds for which the server is asked to hold an answer back until there is news; it grants up to 60."""


class Session:
    """One server, reached by one transport."""

    def __init__(self, transport: Transport, retry: Retry) -> None:
        self.transport = transport
        self.retry = retry

    async def send(self, request: Request) -> Answer:
        """The answer to a request that may arrive several times. Raises `ApiError` and `ConnectionFailed`."""
        pauses = Pauses(self.retry)
        while True:
            try:
                answer = await self.transport.send(request)
            except Lost as lost:
                await self.pause(pauses, connection_failed(lost))
                continue
            # What the first attempt has deleted is not there for the second.
            gone = request.method == "DELETE" and answer.status == 404 and pauses.failures > 0
            if answer.status < 400 or gone:
                return answer
            await self.after_refusal(pauses, answer)

    async def pause(self, pauses: Pauses, failure: EngraftError, seconds: float | None = None) -> None:
        """Waits until the next attempt, for `seconds` at least. Raises `failure` if there is none."""
        pause = pauses.next(seconds)
        if pause is None:
            raise failure from None
        await self.transport.sleep(pause)

    async def after_refusal(self, pauses: Pauses, answer: Answer) -> None:
        """Waits where the refusal may pass. Raises it where it does not."""
        failure = api_error(problem_of(answer))
        if answer.status not in PASSING:
            raise failure
        await self.pause(pauses, failure, wish(answer.headers))

    async def get(self, model: type[M], path: str, *, hold: int = 0) -> M:
        """What is at a path. The server may wait up to `hold` seconds for news of it."""
        headers = {"Prefer": f"wait={hold}"} if hold else {}
        return parsed(model, await self.send(Request("GET", path, headers=headers, hold=hold)))

    async def post(
        self, path: str, body: Mapping[str, Any] | None = None, *, query: Mapping[str, str] | None = None, key: str = ""
    ) -> Answer:
        """The answer to JSON that is sent to a path; `key` marks repetitions of one request."""
        headers = {"Idempotency-Key": key} if key else {}
        content = b""
        if body is not None:
            content, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
        return await self.send(Request("POST", path, query=query or {}, headers=headers, body=content))

    async def delete(self, path: str) -> None:
        """Deletes what is at a path."""
        await self.send(Request("DELETE", path))

    async def pages(self, model: type[M], path: str, query: Query) -> AsyncGenerator[M, None]:
        """Every entry of a list."""
        after: dict[str, str] = {}
        while True:
            page = parsed(Page[model], await self.send(Request("GET", path, query={**query, **after})))  # type: ignore[valid-type]
            for entry in page.data:
                yield entry
            if not page.has_more or page.next_after is None:
                return
            after = {"after": page.next_after}


def parsed(model: type[M], answer: Answer) -> M:
    """The body of an answer. Raises `UnexpectedAnswer`."""
    try:
        return model.model_validate_json(answer.body)
    except ValidationError as error:
        raise UnexpectedAnswer(f"the answer is no {model.__name__} of engraft's: {error}") from error


def problem_of(answer: Answer) -> Problem:
    """Why a request was refused; in the status' own words where the answer is none of the API."""
    try:
        return Problem.model_validate_json(answer.body)
    except ValidationError:
        detail = answer.body[:200].decode(errors="replace").strip()
        return Problem(code=f"http_{answer.status}", title=_title(answer.status), status=answer.status, detail=detail)


def _title(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return f"HTTP status {status}"


def connection_failed(lost: Lost) -> ConnectionFailed:
    """The error of a connection that fails again and again."""
    return ConnectionFailed(f"the server does not answer: {lost}")


def path_of(collection: str, name: str) -> str:
    """The path of something by its id or name."""
    return f"/v1/{collection}/{quote(name, safe='')}"


def listing(state: str | None, labels: Mapping[str, str] | None) -> dict[str, str | list[str]]:
    """The query of a list, or of an upload with labels."""
    query: dict[str, str | list[str]] = {}
    if labels:
        query["label"] = [f"{name}={value}" for name, value in labels.items()]
    if state is not None:
        query["state"] = state
    return query
