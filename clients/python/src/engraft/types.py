"""What the server's answers hold. Fields that a newer server adds are kept, as further attributes."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

T = TypeVar("T")


class Model(BaseModel):
    """A JSON object of an answer."""

    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=())


class Fault(Model):
    """One value of a request that is not valid."""

    pointer: str
    """JSON pointer into the body; `/query/NAME` and `/path/NAME` for parameters."""
    code: str = ""
    detail: str = ""


class Problem(Model):
    """Problem details (RFC 9457): why a request was refused, or why a job or a dataset failed."""

    code: str
    """Stable name of the kind of problem."""
    title: str = ""
    status: int = 0
    detail: str = ""
    errors: list[Fault] = []
    """Every value that is at fault."""
    request_id: str | None = None

    def __str__(self) -> str:
        text = f"{self.title or self.code}: {self.detail}" if self.detail else self.title or self.code
        # The text of a single fault is the detail.
        faults = [f"\n  {fault.pointer}: {fault.detail}" for fault in self.errors] if len(self.errors) > 1 else []
        return f"{text} [{self.code}]" + "".join(faults)


class Page(Model, Generic[T]):
    """One page of a list."""

    data: list[T]
    has_more: bool = False
    next_after: str | None = None


class Tensor(Model):
    """A tensor of a checkpoint."""

    name: str
    dtype: str
    shape: list[int]


class Checkpoint(Model):
    """An uploaded checkpoint."""

    id: str
    name: str
    sha256: str
    bytes: int
    parameters: int = 0
    labels: dict[str, str] = {}
    created_at: datetime | None = None
    tensors: list[Tensor] = []
    """Not in lists."""
    architecture: dict[str, Any] | None = None
    """What its names and shapes show of the network; not in lists."""


class Split(Model):
    """One split of a dataset."""

    examples: int
    per_class: list[int] = []


class Facts(Model):
    """What a dataset holds."""

    format: str = ""
    example_shape: list[int] = []
    classes: int = 0
    class_names: list[str] | None = None
    splits: dict[str, Split] = {}
    mean: list[float] = []
    """Of each channel of the train split, with bytes divided by 255."""
    std: list[float] = []
    notes: list[str] = []


class Dataset(Model):
    """An uploaded dataset."""

    id: str
    name: str
    sha256: str
    bytes: int
    labels: dict[str, str] = {}
    created_at: datetime | None = None
    state: str
    """`validating`, then `ready` or `invalid`."""
    facts: Facts | None = None
    error: Problem | None = None

    @property
    def ended(self) -> bool:
        """Whether the server has read it through."""
        return self.state != "validating"


class Progress(Model):
    """How far an attempt of a job has come."""

    phase: str
    fraction: float
    """Of the phase, in [0, 1]."""
    epoch: int | None = None
    step: int | None = None
    images_per_s: float | None = None
    eta_s: float | None = None
    """Seconds to the end of the phase."""
    job_fraction: float | None = None
    """Of the whole job, in [0, 1]; none before there is a plan."""
    job_eta_s: float | None = None
    """Seconds to the end of the job."""


class Phase(Model):
    """A phase of an attempt."""

    name: str
    started: datetime
    ended: datetime | None = None


class Input(Model):
    """A file that a job reads."""

    role: str
    name: str
    id: str | None = None
    sha256: str = ""


class Artifact(Model):
    """A result of a job."""

    name: str
    href: str
    bytes: int
    sha256: str
    media_type: str = ""


class JobDetails(Model):
    """A job as it was at one moment."""

    id: str
    state: str
    """`queued`, `running` or `cancelling`; at the end `succeeded`, `failed` or `cancelled`."""
    name: str | None = None
    """What its owner calls it."""
    attempt: int = 0
    progress: Progress | None = None
    labels: dict[str, str] = {}
    members: list[str] = []
    dataset: str | None = None
    owner: str | None = None
    """Who queued it, as the key that was used says."""
    retry_of: str | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    error: Problem | None = None
    """Why it failed."""
    queue_position: int | None = None
    phases: list[Phase] = []
    resolved: dict[str, Any] | None = None
    """The request with every default filled in; not in lists."""
    plan: Plan | None = None
    """Not in lists."""
    inputs: list[Input] = []
    artifacts: list[Artifact] = []

    @property
    def ended(self) -> bool:
        """Whether it never changes again."""
        return self.state in ENDS


ENDS = frozenset({"succeeded", "failed", "cancelled"})
"""States of a job that has ended."""


class Event(Model):
    """Something that has happened to a job. Progress in between is of the moment and has no `seq`."""

    type: str
    """`state`, `progress`, `metric`, `warning` or `log`."""
    data: dict[str, Any]
    seq: int | None = None
    at: datetime | None = None
    attempt: int | None = None


class LogLine(Model):
    """A line of a job's log."""

    seq: int
    at: datetime
    attempt: int = 0
    level: str = "info"
    source: str = ""
    message: str = ""


class Score(Model):
    """How well a network does on one split.

    Beside its mean loss (cross-entropy in nats, or squared error) it has what its task is judged by: classes, and one
    yes or no, `accuracy`; several labels `label_accuracy`, `exact_match` and `macro_f1`; numbers `rmse` and `r2`.
    """

    loss: float
    accuracy: float | None = None
    label_accuracy: float | None = None
    exact_match: float | None = None
    macro_f1: float | None = None
    rmse: float | None = None
    r2: float | None = None

    def __str__(self) -> str:
        for share in (self.accuracy, self.label_accuracy):
            if share is not None:
                return f"{share:.2%}"
        return f"{self.loss:.4g}" if self.rmse is None else f"{self.rmse:.4g}"


class Epoch(Model):
    """One epoch of training; epoch 0 is the network before its first step."""

    epoch: int
    train_loss: float | None = None
    train_accuracy: float | None = None
    validation: Score | None = None
    test: Score | None = None
    lr: float | None = None
    images_per_s: float | None = None


class Candidate(Model):
    """A network that a report compares."""

    name: str
    kind: str
    """`member`, `best_member`, `ensemble`, `fused`, …"""
    validation: Score | None = None
    test: Score | None = None
    parameters: int = 0
    macs: int = 0
    bytes: int = 0
    latency_ms: float | None = None


class ReportFile(Model):
    """A file that went into a job, or came out of it."""

    name: str
    sha256: str


class ReportIdentity(Model):
    """Which job a report is of, and of which files."""

    job: str | None = None
    name: str | None = None
    date: datetime | None = None
    model: ReportFile | None = None
    members: list[ReportFile] = []
    dataset: ReportFile | None = None


class CheckedMember(Model):
    """A member and how well it does on the first examples that it was run on."""

    name: str
    score: Score


class CheckFinding(Model):
    """Something that is probably wrong with a job."""

    code: str
    """`normalize_unlike_training`, `validation_seen_in_training` or `members_near_chance`."""
    detail: str
    normalize: dict[str, list[float]] | None = None
    """The likely normalisation."""


class MemberChecks(Model):
    """What was seen of the members before anything else ran."""

    split: str
    examples: int
    members: list[CheckedMember]
    findings: list[CheckFinding] = []


class PublishedControl(Model):
    """What is published in the place of the transplanted network."""

    kind: str
    """`trained_on` or `distilled`."""
    member: str
    epoch: int
    validation: Score
    transplanted: Score


class Report(Model):
    """The comparison of a job's fused network with its members and their ensemble."""

    identity: ReportIdentity = ReportIdentity()
    checks: MemberChecks | None = None
    candidates: list[Candidate] = []
    warnings: list[str] = []
    ensemble_gain_kept: float | None = None
    architecture: str = ""
    evidence: dict[str, Any] | None = None
    epochs: list[Epoch] = []
    best_epoch: int | None = None
    published: PublishedControl | None = None
    """None where the transplanted network is published."""
    engraft_version: str = ""

    def of_kind(self, kind: str) -> list[Candidate]:
        """The candidates of one kind."""
        return [candidate for candidate in self.candidates if candidate.kind == kind]

    def table(self) -> str:
        """The comparison as lines of text: accuracies, or of numbers the root of the mean squared error."""
        rows = [
            (row.name, row.kind, str(row.validation or ""), str(row.test or ""), f"{row.parameters:,}")
            for row in self.candidates
        ]
        rows.insert(0, ("candidate", "kind", "validation", "test", "parameters"))
        names, kinds = max(len(row[0]) for row in rows), max(len(row[1]) for row in rows)
        return "\n".join(f"{row[0]:{names}}  {row[1]:{kinds}}  {row[2]:>10}  {row[3]:>8}  {row[4]:>12}" for row in rows)


class LayerPlan(Model):
    """Width of one layer before and after."""

    name: str
    group: str | None = None
    width_before: int
    width_after: int


class Sizes(Model):
    """One cost of the networks of a plan."""

    members: list[int]
    concatenated: int
    fused: int


class Plan(Model):
    """What a job would do."""

    architecture: str | None = None
    evidence: dict[str, Any] | None = None
    assumptions: list[str] = []
    layers: list[LayerPlan] = []
    parameters: Sizes | None = None
    macs: Sizes | None = None
    bytes: Sizes | None = None
    memory_peak_bytes: int | None = None
    gpu_memory_bytes: int | None = None
    gpu_memory_basis: str | None = None
    disk_peak_bytes: int | None = None
    seconds_estimate: float | None = None
    seconds_basis: str | None = None
    seconds_by_phase: dict[str, float] | None = None
    warnings: list[str] = []


class Run(Model):
    """A run of a comparison."""

    ensemble: str
    method: str
    target: str
    seed: int
    job: str | None = None
    state: str | None = None


class Counts(Model):
    """Runs of a comparison by the state of their jobs."""

    total: int = 0
    queued: int = 0
    running: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    deleted: int = 0


class ComparisonDetails(Model):
    """A comparison as it was at one moment."""

    id: str
    title: str = ""
    quick: bool = False
    state: str
    counts: Counts = Field(default_factory=Counts)
    created_at: datetime | None = None
    runs: list[Run] = []
    """Not in lists."""

    @property
    def ended(self) -> bool:
        """Whether all its runs have ended."""
        return self.state in ENDS


JobDetails.model_rebuild()
