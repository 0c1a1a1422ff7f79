"""From members and data to the fused network, with both clients."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engraft import (
    Checkpoint,
    Client,
    Conflict,
    Dataset,
    Job,
    JobCancelled,
    JobDetails,
    JobFailed,
    NotFound,
    WaitTimeout,
)


@pytest.fixture
def job(client: Client, members: list[Checkpoint], points: Dataset) -> Job:
    """A job that has succeeded."""
    return client.fuse(members, points, finetune={"epochs": 2}, labels={"team": "vision"}).wait(progress=False)


def test_the_whole_cycle(client: Client, members: list[Checkpoint], points: Dataset, tmp_path: Path) -> None:
    assert members[0].tensors[0].name == "fc1.bias"
    assert points.state == "ready"
    assert points.facts is not None
    assert points.facts.splits["test"].examples == 200

    plan = client.plan(members, points, finetune={"epochs": 2})
    assert [(layer.width_before, layer.width_after) for layer in plan.layers] == [(192, 64), (192, 64), (4, 4)]

    seen: list[JobDetails] = []
    job = client.fuse(members, points, finetune={"epochs": 2}, labels={"team": "vision", "run": "7"}, name="tests")
    job.wait(seen.append)
    assert (job.status, seen[-1].state, job.name) == ("succeeded", "succeeded", "tests")
    assert job.labels == {"team": "vision", "run": "7"}
    assert job.id in [found.id for found in client.jobs(labels=job.labels)]
    assert job.progress is not None
    assert job.progress.phase == "publish"
    assert "succeeded" in repr(job)

    report = job.report
    fused, ensemble = report.of_kind("fused")[0].test, report.of_kind("ensemble")[0].test
    assert fused is not None
    assert ensemble is not None
    assert fused.accuracy is not None
    assert ensemble.accuracy is not None
    assert fused.accuracy > ensemble.accuracy - 0.1
    assert "m0.safetensors" in report.table()
    assert [epoch.epoch for epoch in job.epochs] == [0, 1, 2]

    state = job.model()
    assert tuple(state["fc2.weight"].shape) == (64, 64)
    source = job.download(tmp_path / "model.py")
    assert "nn.Linear" in source.read_text()
    assert job.download(tmp_path).name == "fused.safetensors"
    assert job.download(tmp_path / "as_it_is", format="onnx").stat().st_size > 1000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["as_it_is", "fused.safetensors", "model.py"]


def test_jobs_are_found_by_labels_and_states(client: Client, job: Job) -> None:
    assert job.id in [found.id for found in client.jobs(state="succeeded", labels={"team": "vision"})]
    assert list(client.jobs(labels={"team": "nobody"})) == []
    assert client.job(job.id).status == "succeeded"
    with pytest.raises(NotFound):
        client.job("job_019324a5b7c07f3e8d1c2b3a4f5e6d7c")


def test_history(job: Job) -> None:
    events = list(job.events())
    assert [event.seq for event in events if event.seq] == list(range(1, len(events) + 1))
    assert events[-1].data["state"] == "succeeded"
    assert list(job.events(after=len(events))) == []
    lines = list(job.logs())
    assert list(job.logs(tail=2)) == lines[-2:]


def test_events_while_it_runs(client: Client, members: list[Checkpoint], points: Dataset) -> None:
    job = client.fuse(members, points, finetune={"epochs": 30})
    states = [event.data["state"] for event in job.events() if event.type == "state"]
    assert states == ["queued", "running", "succeeded"]


def test_a_long_job_is_waited_for_cancelled_repeated_and_deleted(
    client: Client, members: list[Checkpoint], points: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    job = client.fuse(members, points, finetune={"epochs": 100_000})
    with pytest.raises(WaitTimeout, match=r"is (queued|running) after 1\.2 s"):
        job.wait(timeout=1.2)
    assert job.id in capsys.readouterr().err
    with pytest.raises(Conflict) as active:
        job.delete()
    assert active.value.code == "job_active"
    job.cancel()
    with pytest.raises(JobCancelled):
        job.wait(progress=False)
    again = job.retry()
    assert again.details.retry_of == job.id
    again.cancel()
    with pytest.raises(JobCancelled):
        again.wait(progress=False)
    again.delete()
    with pytest.raises(NotFound):
        again.refresh()


def test_a_job_that_fails_says_why(client: Client, points: Dataset) -> None:
    random = np.random.default_rng(0)
    shapes = {"fc1.weight": (8, 12), "fc1.bias": (8,), "fc2.weight": (4, 8), "fc2.bias": (4,)}
    untrained = [{name: random.normal(size=shape).astype("f4") for name, shape in shapes.items()} for _ in range(2)]
    members = [client.upload(state) for state in untrained]
    with pytest.raises(JobFailed) as failed:
        client.fuse(members, points).wait(progress=False)
    assert failed.value.problem.code == "architecture_ambiguous"
    assert failed.value.problem.detail in str(failed.value)


def test_a_comparison(client: Client, members: list[Checkpoint], points: Dataset, tmp_path: Path) -> None:
    comparison = client.compare(
        {
            "title": "Two seeds",
            "seeds": [0, 1],
            "job": {"dataset": points.name},
            "ensembles": [{"name": "three", "members": [member.name for member in members]}],
            "methods": [{"name": "by default"}],
        }
    ).wait(progress=False)
    assert (comparison.status, len(comparison.details.runs)) == ("succeeded", 2)
    assert comparison.report["title"] == "Two seeds"
    assert "<html" in comparison.download(tmp_path / "report.html").read_text()
    assert client.comparison(comparison.id).details == comparison.details
    assert comparison.id in [found.id for found in client.comparisons()]
    comparison.cancel()
    comparison.delete()
    with pytest.raises(NotFound):
        comparison.refresh()


def test_files_are_listed_and_deleted(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "labelled.npz"
    np.savez(path, x=np.zeros((4, 3), "f4"), y=np.arange(4))
    dataset = client.upload_dataset(path, labels={"kind": "tiny"})
    assert [found.name for found in client.datasets(state="ready", labels={"kind": "tiny"})] == ["labelled.npz"]
    client.delete(dataset)
    with pytest.raises(NotFound):
        client.dataset(dataset.id)
    checkpoint = client.upload({"weight": np.ones((2, 2), "f4")}, name="tiny.safetensors", labels={"kind": "tiny"})
    assert next(client.checkpoints(labels={"kind": "tiny"})).sha256 == checkpoint.sha256
    assert client.checkpoint("tiny.safetensors").tensors[0].shape == [2, 2]
    client.delete(checkpoint)
