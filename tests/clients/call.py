"""A fusion through the client that openapi-python-client makes: uploaded, planned, queued, awaited, reported."""

import io
import sys
from pathlib import Path

from engraft_api import Client
from engraft_api.api.checkpoints import put_checkpoint
from engraft_api.api.jobs import create_job, get_job, get_job_provenance, get_job_report, list_jobs
from engraft_api.models import (
    CheckpointView,
    JobMethod,
    JobRequest,
    JobTarget,
    JobView,
    Labels,
    PageJobSummary,
    Plan,
    ProvenanceView,
    Report,
)
from engraft_api.models.job_method_importance import JobMethodImportance
from engraft_api.types import File


def main(url: str, member: Path) -> None:
    client = Client(base_url=url)
    for name in ("m0.safetensors", "m1.safetensors"):
        stored = put_checkpoint.sync(name, client=client, body=File(payload=io.BytesIO(member.read_bytes())))
        assert isinstance(stored, CheckpointView), stored
    request = JobRequest(
        members=["m0.safetensors", "m1.safetensors"],
        method=JobMethod(importance=JobMethodImportance.MAGNITUDE),
        target=JobTarget(width=1),
        name="by a generated client",
        labels=Labels.from_dict({"client": "python", "run": "7"}),
    )
    plan = create_job.sync(client=client, body=request, validate_only=True)
    assert isinstance(plan, Plan) and plan.parameters is not None, plan
    print("planned:", plan.parameters.fused, "parameters")
    job = create_job.sync(client=client, body=request)
    assert isinstance(job, JobView), job
    while job.state in ("queued", "running", "cancelling"):
        job = get_job.sync(job.id, client=client, prefer="wait=10")
        assert isinstance(job, JobView), job
    assert job.state == "succeeded" and job.resolved.members == request.members, job
    report = get_job_report.sync(job.id, client=client)
    assert isinstance(report, Report), report
    layers: list[int] = [layer.width_after for layer in report.layers]
    origin = get_job_provenance.sync(job.id, client=client)
    assert isinstance(origin, ProvenanceView), origin
    found = list_jobs.sync(client=client, label=["client=python", "run=7"])
    assert isinstance(found, PageJobSummary) and [(one.id, one.name) for one in found.data] == [(job.id, request.name)]
    none = list_jobs.sync(client=client, label=["client=python", "run=8"])
    assert isinstance(none, PageJobSummary) and none.data == [], none
    units = sum(len(group.units) for group in origin.groups)
    print("fused by", report.method.importance.value, "to widths", layers, "from", units, "units")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
