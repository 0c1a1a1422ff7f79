"""The decisions of the core, by scripts."""

from __future__ import annotations

import base64
import hashlib
import json
import pickle
from pathlib import Path

import pytest
from scripted import Scripted, answer

from engraft import (
    ApiError,
    Conflict,
    ConnectionFailed,
    DatasetInvalid,
    DigestMismatch,
    JobCancelled,
    Retry,
    Unavailable,
    UnexpectedAnswer,
)
from engraft.core import jobs
from engraft.core.blocking import iterate, run
from engraft.core.downloads import fetch
from engraft.core.events import FrameReader, follow
from engraft.core.retry import Pauses
from engraft.core.session import Session
from engraft.core.transport import Answer, Lost, Request
from engraft.core.uploads import FIRST, LocalFile, local_file, store
from engraft.errors import api_error
from engraft.types import Checkpoint, JobDetails, Problem

THREE = Retry(attempts=3, first=1.0, longest=2.0)


def problem(status: int, code: str, **headers: str) -> Answer:
    return answer(status, json.dumps({"code": code, "status": status, "title": code, "detail": ""}).encode(), **headers)


def test_pauses_grow_to_a_bound_and_begin_anew_after_headway() -> None:
    pauses = Pauses(Retry(attempts=6, first=1.0, longest=3.0))
    for low, high in ((0.5, 1), (1, 2), (1.5, 3), (1.5, 3), (1.5, 3)):
        pause = pauses.next()
        assert pause is not None
        assert low <= pause <= high
    assert pauses.next() is None
    pauses.headway()
    assert 5 <= (pauses.next(5.0) or 0) <= 6, "at least what the server wishes"
    assert pauses.next(1e6) is None, "a wish that is too long to wait for"


def test_what_passes_is_repeated_and_what_does_not_is_raised() -> None:
    transport = Scripted(Lost("reset"), answer(503, Retry_After="4"), answer(200, b"{}"))
    assert run(Session(transport, THREE).send(Request("GET", "/"))).status == 200
    assert [round(pause) > 3 for pause in transport.slept] == [False, True]
    for refused, error in ((problem(409, "in_use"), Conflict), (problem(507, "disk_full"), ApiError)):
        transport = Scripted(refused)
        with pytest.raises(error):
            run(Session(transport, THREE).send(Request("GET", "/")))
        assert transport.is_over
    with pytest.raises(ConnectionFailed):
        run(Session(Scripted(*[Lost("reset")] * 3), THREE).send(Request("GET", "/")))
    with pytest.raises(Unavailable, match="Service Unavailable: sorry"):
        run(Session(Scripted(*[answer(503, b"sorry")] * 3), THREE).send(Request("GET", "/")))


def test_a_deletion_whose_answer_was_lost_is_done() -> None:
    run(Session(Scripted(Lost("reset"), problem(404, "not_found")), THREE).delete("/v1/jobs/job_1"))
    with pytest.raises(ApiError):
        run(Session(Scripted(problem(404, "not_found")), THREE).delete("/v1/jobs/job_1"))


def test_lists_are_read_to_their_end() -> None:
    pages = [
        {"data": [{"id": "job_1", "state": "queued"}], "has_more": True, "next_after": "job_1"},
        {"data": [{"id": "job_2", "state": "of a later version", "more": 1}], "has_more": False, "next_after": None},
    ]
    transport = Scripted(*(answer(200, json.dumps(page).encode()) for page in pages))
    found = list(iterate(Session(transport, THREE).pages(JobDetails, "/v1/jobs", {"state": "queued"})))
    assert [job.id for job in found] == ["job_1", "job_2"]
    assert found[1].model_extra == {"more": 1}, "what a newer server adds is kept"
    assert transport.requests[1].query == {"state": "queued", "after": "job_1"}


@pytest.fixture
def file(tmp_path: Path) -> LocalFile:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    return local_file(path)


def stored(file: LocalFile, status: int = 201) -> Answer:
    return answer(status, json.dumps({"id": "ckpt_1", "name": "n", "sha256": file.sha256, "bytes": 10}).encode())


def upload(transport: Scripted, file: LocalFile) -> Checkpoint:
    checkpoint = run(store(Session(transport, THREE), Checkpoint, "checkpoints", "n", file, None))
    assert transport.is_over
    return checkpoint


def partly(offset: int) -> Answer:
    return answer(204, Upload_Complete="?0", Upload_Offset=str(offset))


def complete(sha256: str) -> Answer:
    return answer(200, Upload_Complete="?1", Upload_Offset="10", ETag=f'"{sha256}"')


NOTHING = answer(404)


@pytest.mark.parametrize(
    ("script", "parts"),
    [
        ([NOTHING, "stored"], [(0, 10)]),
        (["complete", "stored"], []),
        ([partly(4), "stored"], [(4, 10)]),
        # All had arrived but the answer.
        ([NOTHING, Lost("cut"), "complete", "stored"], [(0, 10)]),
        ([partly(10), "stored"], [(0, 10)]),
        # One byte finds out how much is there, at first that a request is still busy, then that it has brought 5 bytes.
        (
            [
                *(NOTHING, Lost("cut")),
                *(partly(0), problem(409, "upload_in_progress")),
                *(partly(2), problem(409, "upload_offset_mismatch")),
                *(partly(5), "stored"),
            ],
            [(0, 10), (1, 2), (2, 3), (5, 10)],
        ),
        # The beginning was another file's.
        ([partly(4), problem(422, "digest_mismatch"), NOTHING, "stored"], [(4, 10), (0, 10)]),
        # Each part is headway, so more cuts than attempts do no harm.
        (
            [NOTHING, Lost("cut")]
            + [each for at in range(1, 6) for each in (partly(at), answer(204), partly(at + 1), Lost("cut"))]
            + [partly(7), "stored"],
            [(0, 10), *(part for at in range(1, 6) for part in ((at, at + 1), (at + 1, 10))), (7, 8)],
        ),
    ],
)
def test_uploads(script: list[Answer | Lost | str], parts: list[tuple[int, int]], file: LocalFile) -> None:
    known = {"stored": stored(file), "complete": complete(file.sha256)}
    transport = Scripted(*(known[step] if isinstance(step, str) else step for step in script))
    assert upload(transport, file).id == "ckpt_1"
    assert transport.parts() == parts
    digest = base64.b64encode(hashlib.sha256(b"0123456789").digest()).decode()
    for request in transport.requests:
        assert request.method != "PUT" or request.headers["Repr-Digest"] == f"sha-256=:{digest}:"


def test_an_upload_that_cannot_be_is_refused_with_the_reason(file: LocalFile) -> None:
    transport = Scripted(complete("0" * 64), problem(409, "name_taken"))
    with pytest.raises(Conflict):
        upload(transport, file)
    assert transport.parts() == [(0, 10)]
    with pytest.raises(ApiError, match="unauthorized"):
        upload(Scripted(answer(401), problem(401, "unauthorized")), file)
    with pytest.raises(UnexpectedAnswer, match="is a server of engraft there"):
        upload(Scripted(answer(200)), file)
    with pytest.raises(ApiError, match="digest_mismatch"):
        upload(Scripted(NOTHING, problem(422, "digest_mismatch")), file)


def test_frames_are_read_wherever_they_are_cut() -> None:
    text = (
        b': kept alive\n\nid: 3\r\nevent: log\r\ndata: {"a":\r\ndata: "\xc3\xa4"}\r\n\r\nevent: progress\ndata: {}\n\n'
    )
    for size in range(1, len(text)):
        reader = FrameReader()
        frames = [frame for at in range(0, len(text), size) for frame in reader.feed(text[at : at + size])]
        assert [(frame.id, frame.event, frame.data) for frame in frames] == [
            ("3", "log", ['{"a":', '"ä"}']),
            (None, "progress", ["{}"]),
        ]


def state(seq: int, name: str) -> bytes:
    data = {"seq": seq, "type": "state", "attempt": 1, "data": {"state": name}}
    return f"id: {seq}\nevent: state\ndata: {json.dumps(data)}\n\n".encode()


def test_events_go_on_behind_the_last_one() -> None:
    running = answer(200, b'{"id": "job_1", "state": "running"}')
    transport = Scripted(
        [state(1, "queued"), b"event: progress\ndata: {}\n\n", state(2, "running")[:20], Lost("reset")],
        answer(503),
        [],
        running,
        [state(2, "running"), state(3, "failed"), b"never read"],
    )
    events = list(iterate(follow(Session(transport, Retry(attempts=4)), "job_1")))
    assert [(event.type, event.seq) for event in events] == [
        ("state", 1),
        ("progress", None),
        ("state", 2),
        ("state", 3),
    ]
    after = [request.headers["Last-Event-ID"] for request in transport.requests if request.headers]
    assert after == ["0", "1", "1", "1"]


def remote(content: bytes, **headers: str) -> Answer:
    digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
    given = {"Content_Range": f"bytes 0-0/{len(content)}", "Repr_Digest": f"sha-256=:{digest}:", **headers}
    return answer(206, content[:1], **given)


def test_downloads_end_with_the_right_bytes_or_none(tmp_path: Path) -> None:
    target = tmp_path / "model"
    transport = Scripted(remote(b"0123456789"), [b"0123", Lost("reset")], answer(503), [b"456789"])
    # What a script streams is answered with 200, which begins anew; so these bytes are not the file's.
    with pytest.raises(DigestMismatch):
        run(fetch(Session(transport, THREE), "/v1/jobs/job_1/model", {}, target))
    assert list(tmp_path.iterdir()) == []
    parts = [request.headers["Range"] for request in transport.requests]
    assert parts == ["bytes=0-0", "bytes=0-", "bytes=4-", "bytes=4-"]
    transport = Scripted(remote(b"0123456789", Content_Disposition='attachment; filename="../x"'), [b"0123456789"])
    path = run(fetch(Session(transport, THREE), "/v1/jobs/job_1/model", {}, tmp_path))
    assert path == tmp_path / "model", "a name with a folder is not taken"


def test_a_server_that_says_no_digest_is_not_trusted(tmp_path: Path) -> None:
    for given in (answer(206, b"0", Content_Range="bytes 0-0/10"), remote(b"0", Repr_Digest="sha-256=:?:")):
        with pytest.raises(UnexpectedAnswer):
            run(fetch(Session(Scripted(given), THREE), "/v1/jobs/job_1/model", {}, tmp_path))


def test_waiting_asks_for_no_longer_than_is_left() -> None:
    queued, done = ({"id": "job_1", "state": name} for name in ("queued", "succeeded"))
    transport = Scripted(*(answer(200, json.dumps(job).encode()) for job in (queued, done)))
    run(jobs.wait(Session(transport, THREE), JobDetails, "/v1/jobs/job_1", None, 7.0))
    assert [request.headers for request in transport.requests] == [{"Prefer": "wait=6"}] * 2
    assert transport.slept == []


def test_a_server_that_holds_no_answer_back_is_not_asked_all_the_time() -> None:
    states = ["running", "running", "running", "succeeded"]
    transport = Scripted(*(answer(200, json.dumps({"id": "job_1", "state": name}).encode()) for name in states))
    run(jobs.wait(Session(transport, THREE), JobDetails, "/v1/jobs/job_1", None, None))
    assert [round(pause) for pause in transport.slept] == [1, 1]


def test_the_first_part_is_small(tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(bytes(FIRST + 1))
    large = local_file(path)
    transport = Scripted(NOTHING, answer(204), partly(FIRST), stored(large))
    assert upload(transport, large).sha256 == large.sha256
    assert transport.parts() == [(0, FIRST), (FIRST, FIRST + 1)]
    transport = Scripted(NOTHING, problem(422, "invalid_checkpoint"))
    with pytest.raises(ApiError, match="invalid_checkpoint"):
        upload(transport, large)


def test_errors_can_go_to_other_processes() -> None:
    details = JobDetails.model_validate({"id": "job_1", "state": "cancelled"})
    for error in (
        JobCancelled(details),
        DatasetInvalid("n", Problem(code="c")),
        api_error(Problem(code="c", status=409)),
    ):
        copy = pickle.loads(pickle.dumps(error))
        assert (type(copy), str(copy)) == (type(error), str(error))


def test_a_coroutine_that_suspends_needs_an_event_loop() -> None:
    class Suspends:
        def __await__(self):  # type: ignore[no-untyped-def]  # noqa: ANN204
            yield

    async def suspends() -> None:
        await Suspends()

    with pytest.raises(RuntimeError, match="suspended"):
        run(suspends())
