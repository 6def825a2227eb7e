"""What an operator configures, read from HYPLORA_* environment variables and nowhere else.

One machine needs none of them; a cluster sets the database, the addresses and the shared folders.
"""

from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from workers.reach import Reach

AbsolutePath = Annotated[Path, AfterValidator(lambda path: path.expanduser().absolute())]


def _split(given: object) -> object:
    if isinstance(given, str):
        return tuple(part.strip() for part in given.split(",") if part.strip())
    return given


Listed = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
"""Texts with commas between them."""


class ServiceSettings(BaseSettings):
    """Settings of one control-plane process.

    Secrets are not among them, but for a password in the database's URL: API keys are in the
    database, hashed; MLflow's credentials are MLFLOW_TRACKING_USERNAME and
    MLFLOW_TRACKING_PASSWORD, and Ray's token comes by RAY_AUTH_MODE and RAY_AUTH_TOKEN_PATH.
    """

    model_config = SettingsConfigDict(
        env_prefix="HYPLORA_",
        frozen=True,
        use_attribute_docstrings=True,
        extra="ignore",
        hide_input_in_errors=True,  # an address may hold a password
    )

    home: AbsolutePath = Field(Path("~/.hyplora"), validate_default=True)
    """Folder of everything below that has no setting of its own."""

    host: str = "127.0.0.1"
    """Address the API listens on."""

    port: int = Field(8800, ge=0, le=65535)
    """Port the API listens on."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Least severe log record that is written."""

    database_url: str = Field(
        default_factory=lambda given: f"sqlite+aiosqlite:///{given['home'] / 'hyplora.db'}"
    )
    """SQLAlchemy URL with an asyncio driver: sqlite+aiosqlite or, with the extra `postgres`,
    postgresql+asyncpg. Default: a SQLite file under home."""

    files_dir: AbsolutePath = Field(default_factory=lambda given: given["home"] / "files")
    """Uploaded data sets, on storage that every node sees. Default: files under home."""

    storage_path: str = Field(default_factory=lambda given: str(given["home"] / "checkpoints"))
    """Checkpoints: a folder or object-store URI that every node sees. Default: under home."""

    ray_address: str = "http://127.0.0.1:8265"
    """Ray's dashboard and Jobs API, as this process reaches it."""

    ray_dashboard_url: str = Field(default_factory=lambda given: given["ray_address"])
    """The same as a browser reaches it, for links. Default: ray_address."""

    mlflow_tracking_uri: str = "http://127.0.0.1:5000"
    """MLflow server, as this process, the drivers and the CLI reach it."""

    mlflow_ui_url: str = Field(default_factory=lambda given: given["mlflow_tracking_uri"])
    """The same as a browser reaches it, for links. Default: mlflow_tracking_uri."""

    mlflow_experiment: str = "hyplora"
    """MLflow experiment that holds every job's run."""

    driver_python: str = Field("python", pattern=r"^[A-Za-z0-9_./+-]+$")
    """Python interpreter of the drivers on the cluster; it goes into a shell command."""

    max_live_drivers: PositiveInt = 2
    """Jobs that are on the Ray cluster at a time; the others stay queued here."""

    max_attempts: PositiveInt = 3
    """Submissions of one job before a lost driver fails it; counted anew after a pause."""

    start_deadline_s: float = Field(0, ge=0)
    """Seconds that a job waits on a cluster whose nodes are too small for it, or lack GPUs, until
    it fails with what is missing. 0 fails it at once; give an autoscaled cluster some minutes."""

    stop_grace_s: int = Field(60, ge=5)
    """Seconds that a driver has for its last checkpoint when it is stopped; then it is killed and
    its last periodic checkpoint stands."""

    max_dry_runs: PositiveInt = 2
    """Dry runs that this process has on the cluster at a time; more are refused."""

    dry_run_timeout_s: PositiveFloat = 120.0
    """Seconds after which a dry run is stopped and given up."""

    poll_interval_s: PositiveFloat = 1.0
    """Seconds between two looks at the queue, at Ray and at MLflow."""

    lease_ttl_s: PositiveFloat = 10.0
    """Seconds after which another replica takes over from a silent one."""

    sse_heartbeat_s: PositiveFloat = 15.0
    """Seconds between comments on a silent event stream, so that proxies keep it open."""

    requests_per_minute: PositiveInt = 600
    """How often one API key may ask, on average and of each replica."""

    requests_burst: PositiveInt = 600
    """How often it may ask at once, after a pause."""

    failures_per_minute: PositiveInt = 30
    """How often one address may come with what is no valid API key; as many at once."""

    max_upload_bytes: PositiveInt = 2 * 1024**3
    """Largest data set accepted by POST /v1/files."""

    upload_wait_s: float = Field(10.0, ge=0)
    """Seconds that POST /v1/files waits for the validation of the rows; one that takes longer is
    answered as `validating` and carried on."""

    max_validations: PositiveInt = 2
    """Large data sets that this process validates at a time, each in a child of its own."""

    allowed_base_models: Listed = ("*",)
    """Base models that jobs may use, by Hugging Face id or MLflow URI, with commas between them
    and * and ? for what may differ: `Qwen/*,models:/*`. Local folders are no part of it."""

    allowed_folders: Listed = ()
    """Absolute folders, with commas between them, below which base models, adapters and file://
    sources may lie. Default: none. Hidden files and folders, and `home` with all that this
    process keeps, stay closed unless they are named themselves."""

    allowed_sources: Listed = ("hub://*",)
    """Where rows may be read from, with commas between them: s3://BUCKET, gs://BUCKET/FOLDER,
    abfs://CONTAINER, hub://openai/*. Default: data sets of the Hugging Face hub alone."""

    @field_validator("ray_address", "ray_dashboard_url", "mlflow_tracking_uri", "mlflow_ui_url")
    @classmethod
    def _url_holds_no_secret(cls, url: str) -> str:
        """Addresses travel in links and in the drivers' environment, which API clients can read."""
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError(f"give an address such as http://127.0.0.1:5000, not {url!r}")
        if parts.username or parts.password:
            raise ValueError("give credentials by environment variables, not inside the address")
        return url.rstrip("/")

    @field_validator("allowed_folders")
    @classmethod
    def _folders_are_absolute(cls, folders: tuple[str, ...]) -> tuple[str, ...]:
        for folder in folders:
            if not folder.startswith("/"):
                raise ValueError(f"give absolute folders, with commas between them, not {folder!r}")
        return folders

    @field_validator("allowed_sources")
    @classmethod
    def _sources_have_schemes(cls, sources: tuple[str, ...]) -> tuple[str, ...]:
        for source in sources:
            if not source.startswith(("s3://", "gs://", "abfs://", "hub://")):
                raise ValueError(
                    f"give s3://, gs://, abfs:// or hub:// with a name, not {source!r}; folders "
                    "are HYPLORA_ALLOWED_FOLDERS"
                )
        return sources

    @field_validator("database_url")
    @classmethod
    def _driver_is_asynchronous(cls, url: str) -> str:
        if not url.startswith(("sqlite+aiosqlite:", "postgresql+asyncpg:")):
            raise ValueError(
                "give a URL such as sqlite+aiosqlite:////var/lib/hyplora/hyplora.db or "
                "postgresql+asyncpg://user@host/hyplora"
            )
        return url

    @cached_property
    def reach(self) -> Reach:
        """What the jobs of this service may read."""
        return Reach(
            base_models=self.allowed_base_models,
            folders=self.allowed_folders,
            closed_folders=(str(self.home), str(self.files_dir)),
            sources=self.allowed_sources,
        )

    @cached_property
    def is_sqlite(self) -> bool:
        """Whether the database is one file that only this machine can open."""
        return self.database_url.startswith("sqlite")


def describe_faults(error: ValidationError) -> str:
    """What is wrong with the environment, on one line."""
    faults = error.errors(include_url=False, include_input=False)
    return "; ".join(
        f"HYPLORA_{'.'.join(map(str, fault['loc'])).upper()}: {fault['msg']}"
        for fault in faults
        if fault["type"] != "default_factory_not_called"  # follows from another fault
    )
