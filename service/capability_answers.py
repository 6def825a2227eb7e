"""What the HTTP API answers about what a service can do."""

from jobs.method_specs import PresetName
from jobs.specs import JobKind
from service.answers import Answer
from service.callers import Scope
from workers.tasks.specs import TaskName


class BoundsRead(Answer):
    """The least and the largest number that a field takes."""

    minimum: int
    """The least."""

    maximum: int
    """The largest."""


class AdapterRead(Answer):
    """A kind of adapter."""

    method: str
    """`adapter.method` of a job."""

    projections: list[str]
    """`adapter.projection`; empty where there is no choice."""

    rank: BoundsRead
    """`adapter.r`."""


class SearchersRead(Answer):
    """How a search can choose its trials and end them."""

    algorithms: list[str]
    """`algorithm.name`."""

    early_stopping: list[str]
    """`algorithm.early_stopping`."""

    objectives: list[str]
    """`objectives.N.metric` of the training."""

    task_measures: list[str]
    """Beginnings of metrics of a task, as in accuracy/TASK."""


class LimitsRead(Answer):
    """How much a service takes."""

    max_upload_bytes: int
    """Largest data set."""

    max_body_bytes: int
    """Largest body of any other request."""

    max_live_drivers: int
    """Jobs on the cluster at a time; the others wait."""

    max_attempts: int
    """Submissions of a job whose driver is lost."""

    max_dry_runs: int
    """Dry runs at a time."""

    requests_per_minute: int
    """Requests of one key, on average."""

    requests_burst: int
    """Requests of one key at once, after a pause."""


class CapabilitiesRead(Answer):
    """What a service can do, and what the caller's key may."""

    version: str
    """Version of the service."""

    project: str
    """Project of the caller's key."""

    scopes: list[Scope]
    """What the caller's key may do, with the scopes that others include."""

    kinds: list[JobKind]
    """`kind` of a job."""

    tasks: list[TaskName]
    """Benchmarks, by name."""

    scorers: list[str]
    """`scorer.kind` of a task of one's own."""

    base_models: list[str]
    """What `base_model` may be, with * and ? for what may differ; folders, which only operators
    name, are not told."""

    adapters: list[AdapterRead]
    """What can be trained."""

    presets: list[PresetName]
    """Methods that a comparison knows by name."""

    dtypes: list[str]
    """`training.dtype`."""

    quantizations: list[str]
    """`training.quantization`."""

    chat_templates: list[str]
    """`data.chat_template`."""

    searchers: SearchersRead
    """How a search chooses."""

    limits: LimitsRead
    """How much this service takes."""
