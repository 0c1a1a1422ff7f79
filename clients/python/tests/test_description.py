"""What the client expects of answers, and takes as fields of a job, against the description of the API."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter, ValidationError

from engraft import JobFields, types

DESCRIPTION = Path(__file__).parents[3] / "openapi.yaml"
SCHEMAS: dict[str, Any] = yaml.safe_load(DESCRIPTION.read_text())["components"]["schemas"]

MODELS: list[tuple[type[types.Model], str]] = [
    (types.Artifact, "ArtifactView"),
    (types.Candidate, "CandidateReport"),
    (types.CheckFinding, "CheckFinding"),
    (types.CheckedMember, "CheckedMember"),
    (types.Checkpoint, "CheckpointSummary"),
    (types.Checkpoint, "CheckpointView"),
    (types.ComparisonDetails, "ComparisonSummary"),
    (types.ComparisonDetails, "ComparisonView"),
    (types.Counts, "CountsView"),
    (types.Dataset, "DatasetView"),
    (types.Epoch, "EpochMetrics"),
    (types.Epoch, "EpochMetrics"),
    (types.Event, "EventView"),
    (types.Facts, "FactsView"),
    (types.Fault, "FaultView"),
    (types.Input, "InputView"),
    (types.JobDetails, "JobSummary"),
    (types.JobDetails, "JobView"),
    (types.LayerPlan, "LayerPlan"),
    (types.LogLine, "LogView"),
    (types.MemberChecks, "MemberChecks"),
    (types.Phase, "PhaseView"),
    (types.Plan, "Plan"),
    (types.Problem, "ProblemView"),
    (types.Progress, "ProgressView"),
    (types.Report, "Report"),
    (types.ReportFile, "ReportFile"),
    (types.ReportIdentity, "ReportIdentity"),
    (types.Run, "RunView"),
    (types.Score, "Score"),
    (types.Sizes, "NetworkFigures"),
    (types.Split, "SplitView"),
    (types.Tensor, "TensorView"),
]
IN_LISTS = {"CheckpointSummary", "ComparisonSummary", "JobSummary"}


def whole(schema: dict[str, Any]) -> tuple[dict[str, Any], set[str]]:
    """Properties and required ones of an object, with those of what it is made of."""
    if "$ref" in schema:
        return whole(SCHEMAS[schema["$ref"].rsplit("/", 1)[-1]])
    properties, required = dict(schema.get("properties", {})), set(schema.get("required", []))
    for part in schema.get("allOf", []):
        more, needed = whole(part)
        properties.update(more)
        required |= needed
    for choice in schema.get("oneOf", []):
        properties.update(whole(choice)[0])
    return properties, required


def may_be_null(schema: dict[str, Any]) -> bool:
    kinds = schema.get("type", [])
    choices = [*schema.get("oneOf", []), *schema.get("anyOf", [])]
    return kinds == "null" or "null" in kinds or any(may_be_null(choice) for choice in choices)


@pytest.mark.parametrize(("model", "name"), MODELS, ids=[name for _, name in MODELS])
def test_answers(model: type[types.Model], name: str) -> None:
    properties, required = whole(SCHEMAS[name])
    for field, info in model.model_fields.items():
        if info.is_required():
            assert field in required, f"{field} may be absent"
        assert field in properties or name in IN_LISTS, f"{field} is not there"
        if may_be_null(properties.get(field, {})):
            try:
                TypeAdapter(info.rebuild_annotation()).validate_python(None)
            except ValidationError:
                pytest.fail(f"{field} may be null")


def test_fields_of_a_job() -> None:
    properties, _ = whole(SCHEMAS["JobRequest"])
    assert JobFields.__optional_keys__ == properties.keys() - {"members", "dataset"}
