"""A job's history as server-sent events, which goes on where a connection was lost."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, field

from pydantic import TypeAdapter, ValidationError

from ..errors import UnexpectedAnswer
from ..types import ENDS, Event, JobDetails
from .retry import Pauses
from .session import Session, connection_failed, path_of
from .transport import Lost, Request


@dataclass
class Frame:
    """One server-sent event."""

    id: str | None = None
    event: str = "message"
    data: list[str] = field(default_factory=list)


class FrameReader:
    """Puts the frames of an event stream together."""

    def __init__(self) -> None:
        self._rest = b""
        self._frame = Frame()

    def feed(self, chunk: bytes) -> Iterator[Frame]:
        """The frames that are complete with these bytes."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            text = line.removesuffix(b"\r").decode(errors="replace")
            if not text:
                if self._frame.data:
                    yield self._frame
                self._frame = Frame()
                continue
            name, _, value = text.partition(":")
            value = value.removeprefix(" ")
            if name == "id":
                self._frame.id = value
            elif name == "event":
                self._frame.event = value
            elif name == "data":
                self._frame.data.append(value)


async def follow(session: Session, job: str, after: int = 0) -> AsyncGenerator[Event, None]:
    """The events of a job behind the position `after`, to the job's end."""
    path = path_of("jobs", job)
    pauses = Pauses(session.retry)
    while True:
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
        failure = connection_failed(Lost("the stream of events ends before the job"))
        before = after
        try:
            async with session.transport.stream(Request("GET", f"{path}/events", headers=headers)) as answer:
                if answer.status >= 400:
                    await session.after_refusal(pauses, await answer.whole())
                    continue
                reader = FrameReader()
                async for chunk in answer.chunks():
                    for event in map(event_of, reader.feed(chunk)):
                        pauses.headway()
                        after = event.seq or after
                        yield event
                        if event.type == "state" and event.data.get("state") in ENDS:
                            return
        except Lost as lost:
            failure = connection_failed(lost)
        # A caller who has seen the end already gets no more.
        if after == before and (await session.get(JobDetails, path)).ended:
            return
        await session.pause(pauses, failure)


_DATA = TypeAdapter(dict[str, object])


def event_of(frame: Frame) -> Event:
    """The event in a frame; progress in between comes as it is, without a position."""
    text = "\n".join(frame.data)
    try:
        if frame.id is None:
            return Event(type=frame.event, data=_DATA.validate_json(text))
        return Event.model_validate_json(text)
    except ValidationError as error:
        raise UnexpectedAnswer(f"the stream of events holds what is no event: {error}") from error
