"""Connections that break, servers that have no time, and requests that are wrong; with both clients."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from bridge import Connect
from conftest import serve
from proxy import Proxy, refusal

from engraft import (
    Checkpoint,
    Client,
    Conflict,
    ConnectionFailed,
    Dataset,
    DatasetInvalid,
    Invalid,
    Job,
    Retry,
    Unauthorized,
    Unavailable,
    UnexpectedAnswer,
)

SIZE = 3 << 20


@pytest.fixture
def state(request: pytest.FixtureRequest) -> dict[str, np.ndarray]:
    """Weights that no other test has: 3 MiB."""
    seed = int.from_bytes(hashlib.sha256(request.node.name.encode()).digest()[:4], "big")
    return {"fc.weight": np.random.default_rng(seed).normal(size=(768, 1024)).astype("float32")}


def test_an_upload_that_is_cut_ten_times_arrives(connect: Connect, proxy: Proxy, state: dict[str, np.ndarray]) -> None:
    proxy.cuts_up.extend([200_000 + 7_777 * number for number in range(10)])
    checkpoint = connect(proxy.url).upload(state)
    assert not proxy.cuts_up
    assert checkpoint.bytes > SIZE
    assert proxy.bytes_up < SIZE + 60_000, "what the server has acknowledged is not sent again"


def test_the_same_bytes_are_not_sent_twice(connect: Connect, proxy: Proxy, state: dict[str, np.ndarray]) -> None:
    client = connect(proxy.url)
    first, sent = client.upload(state), proxy.bytes_up
    assert client.upload(state) == first
    assert proxy.bytes_up < sent + 10_000


def test_a_name_that_is_taken_is_refused_before_the_file_is_sent(
    connect: Connect, proxy: Proxy, state: dict[str, np.ndarray]
) -> None:
    client = connect(proxy.url)
    client.upload(state, name="taken")
    sent = proxy.bytes_up
    with pytest.raises(Conflict, match="taken") as refused:
        client.upload({name: weight + 1 for name, weight in state.items()}, name="taken")
    assert refused.value.code == "name_taken"
    assert proxy.bytes_up < sent + 300_000
    client.delete(client.checkpoint("taken"))


def test_an_upload_of_another_file_that_was_left_is_begun_anew(
    connect: Connect, proxy: Proxy, state: dict[str, np.ndarray]
) -> None:
    proxy.cuts_up.append(1 << 20)
    with pytest.raises(ConnectionFailed):
        connect(proxy.url, retry=Retry(attempts=1)).upload(state, name="left")
    other = connect(proxy.url).upload({name: weight + 1 for name, weight in state.items()}, name="left")
    client = connect(proxy.url)
    with pytest.raises(Conflict):
        client.upload(state, name="left")
    client.delete(other)


def test_what_the_server_has_no_time_for_is_repeated(connect: Connect, proxy: Proxy, trained: list[Path]) -> None:
    proxy.refusals = 2
    client = connect(proxy.url)
    client.upload(trained[0])
    proxy.answers.append(refusal(503, "unavailable", "Retry-After: 0"))
    proxy.answers.append(refusal(429, "too_many"))
    assert client.upload(trained[0]).name == "m0.safetensors"
    fresh = connect(proxy.url)
    assert fresh.checkpoint("m0.safetensors").name == "m0.safetensors"
    assert not proxy.answers


def test_the_last_refusal_is_raised(connect: Connect, proxy: Proxy) -> None:
    proxy.answers.extend([refusal(503, "unavailable", "Retry-After: 0")] * 3)
    with pytest.raises(Unavailable) as refused:
        connect(proxy.url, retry=Retry(attempts=3, first=0.01)).job("job_1")
    assert (refused.value.status, refused.value.code) == (503, "unavailable")
    proxy.refusals = 3
    with pytest.raises(ConnectionFailed):
        connect(proxy.url, retry=Retry(attempts=3, first=0.01)).job("job_1")


def test_a_job_is_queued_once_though_its_answer_is_lost(
    connect: Connect, server: str, proxy: Proxy, members: list[Checkpoint], points: Dataset
) -> None:
    label = hashlib.sha256(proxy.url.encode()).hexdigest()[:8]
    proxy.cuts_down.append(100)
    job = connect(proxy.url).fuse(members, points, labels={"once": label})
    assert not proxy.cuts_down
    assert [found.id for found in connect(server).jobs(labels={"once": label})] == [job.id]
    job.wait(progress=False)


@pytest.fixture
def job(client: Client, members: list[Checkpoint], points: Dataset) -> Job:
    """A job that has succeeded."""
    return client.fuse(members, points, finetune={"epochs": 2}).wait(progress=False)


def test_events_go_on_where_they_were_cut(connect: Connect, proxy: Proxy, job: Job) -> None:
    proxy.cuts_down.extend([1500, 1800, 2100])
    events = list(connect(proxy.url).job(job.id).events())
    assert not proxy.cuts_down
    assert [event.seq for event in events if event.seq] == list(range(1, len(events) + 1))
    assert events[-1].data == {"state": "succeeded"}


def test_a_download_goes_on_where_it_was_cut(connect: Connect, proxy: Proxy, job: Job, tmp_path: Path) -> None:
    details = {artifact.name: artifact for artifact in job.details.artifacts}["model"]
    impatient = connect(proxy.url, retry=Retry(attempts=1)).job(job.id)
    proxy.cuts_down.append(details.bytes // 2 + proxy.bytes_down)
    with pytest.raises(ConnectionFailed):
        impatient.download(tmp_path / "fused.safetensors")
    (part,) = tmp_path.iterdir()
    have = part.stat().st_size
    assert 0 < have < details.bytes
    patient = connect(proxy.url).job(job.id)
    before, quarter = proxy.bytes_down, details.bytes // 4
    proxy.cuts_down.append(quarter + 8_000)
    path = patient.download(tmp_path / "fused.safetensors")
    assert not proxy.cuts_down
    # What was on its way when the connection was cut comes again.
    assert proxy.bytes_down - before < details.bytes - have + quarter + 4_000
    assert hashlib.sha256(path.read_bytes()).hexdigest() == details.sha256
    assert list(tmp_path.iterdir()) == [path]


def test_every_wrong_field_is_named(client: Client) -> None:
    with pytest.raises(Invalid) as refused:
        client.submit({"members": ["m0.safetensors"], "finetune": {"epoch": 3}})
    error = refused.value
    assert (error.status, error.code) == (422, "invalid_request")
    assert {"/dataset", "/finetune/epoch"} <= {fault.pointer for fault in error.errors}
    assert "`epochs` may be meant" in str(error)
    assert error.request_id


def test_a_file_that_is_no_checkpoint_is_refused(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "notes.safetensors"
    path.write_text("These are no weights. " * 1_000_000)
    with pytest.raises(Invalid) as refused:
        client.upload(path)
    assert refused.value.code == "invalid_checkpoint"


def test_a_dataset_that_cannot_be_read_says_why(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "broken.npz"
    np.savez(path, y=np.zeros(4, "i8"))
    with pytest.raises(DatasetInvalid, match=r"broken\.npz") as refused:
        client.upload_dataset(path)
    assert refused.value.problem.code == "dataset_invalid"
    client.delete(client.dataset("broken.npz"))


KEY = "engraft_" + "5" * 64


@pytest.fixture(scope="session")
def guarded(binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that wants a key."""
    yield from serve(binary, tmp_path_factory.mktemp("guarded") / "data", "--workers", "0", key=KEY)


def test_a_key_is_sent(connect: Connect, guarded: str, monkeypatch: pytest.MonkeyPatch, trained: list[Path]) -> None:
    with pytest.raises(Unauthorized, match="key"):
        connect(guarded).upload(trained[0])
    assert connect(guarded, api_key=KEY).upload(trained[0]).name == "m0.safetensors"
    monkeypatch.setenv("ENGRAFT_API_KEY", KEY)
    assert [checkpoint.name for checkpoint in connect(guarded).checkpoints()] == ["m0.safetensors"]


def test_another_program_is_no_server_of_engraft(connect: Connect, proxy: Proxy) -> None:
    page = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"
    proxy.answers.extend([page, page])
    with pytest.raises(UnexpectedAnswer):
        connect(proxy.url).job("job_1")
    with pytest.raises(UnexpectedAnswer):
        connect(proxy.url).upload({"weight": np.ones(3, "f4")})
    with pytest.raises(ValueError, match="http://"):
        connect("localhost:8080")
