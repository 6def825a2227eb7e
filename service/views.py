"""Records as the API answers them, with links to where else they can be looked at."""

from service.answers import EventRead, FileRead, JobRead, LinksRead
from service.boundaries import RunRef
from service.reports import report_folder
from service.settings import ServiceSettings
from service.tables import Job, JobEvent, UploadedFile
from service.trial_answers import TrialLinksRead, TrialRead
from service.trial_records import Trial


class Views:
    """Turns records into answers; knows where browsers find Ray and MLflow."""

    def __init__(self, settings: ServiceSettings) -> None:
        self._ray_url = settings.ray_dashboard_url
        self._mlflow_url = settings.mlflow_ui_url

    def job(self, job: Job) -> JobRead:
        """The record of a job."""
        answer = JobRead.model_validate(job, from_attributes=True)
        return answer.model_copy(update={"links": self._links(job)})

    def trial(self, job_id: str, trial: Trial) -> TrialRead:
        """A trial of a search."""
        links = TrialLinksRead(
            self_=f"/v1/jobs/{job_id}/trials/{trial.id}",
            job=f"/v1/jobs/{job_id}",
            mlflow_run=self._run_page(trial.run),
        )
        answer = TrialRead.model_validate(trial, from_attributes=True)
        return answer.model_copy(update={"links": links})

    def file(self, file: UploadedFile) -> FileRead:
        """The record of a data set."""
        return FileRead.model_validate(file, from_attributes=True)

    def event(self, event: JobEvent) -> EventRead:
        """An entry of a job's history."""
        return EventRead.model_validate(event, from_attributes=True)

    def _links(self, job: Job) -> LinksRead:
        path = f"/v1/jobs/{job.id}"
        links = {"self": path}
        links |= {name: f"{path}/{name}" for name in ("events", "logs", "metrics", "artifacts")}
        if job.rerun_of is not None:
            links["rerun_of"] = f"/v1/jobs/{job.rerun_of}"
        if job.submitted_at is not None:
            links["ray_dashboard"] = f"{self._ray_url}/#/jobs/{job.submission_id}"
        if job.kind == "finetune":
            links["checkpoints"] = f"{path}/checkpoints"
        if job.kind == "search":
            links["trials"] = f"{path}/trials"
        if report_folder(job) is not None:
            links["report"] = f"{path}/report"
        if job.run_id is not None and job.experiment_id is not None:
            links["mlflow_run"] = self._run_page(RunRef(job.run_id, job.experiment_id))
        if version := job.model_version:
            links["model_version"] = (
                f"{self._mlflow_url}/#/models/{version['name']}/versions/{version['version']}"
            )
        return LinksRead.model_validate(links)

    def _run_page(self, run: RunRef) -> str:
        return f"{self._mlflow_url}/#/experiments/{run.experiment_id}/runs/{run.run_id}"
