from pathlib import Path

import pytest
from pydantic import ValidationError

from service.settings import ServiceSettings, describe_faults


def test_everything_lies_under_home_unless_it_is_placed_elsewhere(tmp_path: Path) -> None:
    settings = ServiceSettings(home=tmp_path, files_dir=tmp_path / "elsewhere")

    assert settings.database_url == f"sqlite+aiosqlite:///{tmp_path}/hyplora.db"
    assert settings.storage_path == str(tmp_path / "checkpoints")
    assert settings.files_dir == tmp_path / "elsewhere"


def test_settings_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HYPLORA_HOME", str(tmp_path))
    monkeypatch.setenv("HYPLORA_RAY_ADDRESS", "http://ray.example:8265/")

    settings = ServiceSettings()

    assert settings.home == tmp_path
    assert settings.ray_address == "http://ray.example:8265"
    assert settings.ray_dashboard_url == "http://ray.example:8265"


def test_a_home_under_the_users_folder_becomes_an_absolute_path() -> None:
    assert ServiceSettings(home=Path("~/tuning")).home == Path.home() / "tuning"


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("mlflow_tracking_uri", "http://me:secret@mlflow:5000", "credentials"),
        ("mlflow_tracking_uri", "sqlite:///mlflow.db", "give an address"),
        ("ray_address", "127.0.0.1:8265", "give an address"),
        ("database_url", "sqlite:///jobs.db", "give a URL"),
        ("driver_python", "python; rm -rf /", "pattern"),
        ("max_live_drivers", 0, "greater than 0"),
        ("stop_grace_s", 4, "greater than or equal to 5"),
        ("port", 70000, "65535"),
        ("allowed_folders", "models", "absolute"),
        ("allowed_folders", "s3://bucket", "absolute"),
        ("allowed_sources", "/rows", "HYPLORA_ALLOWED_FOLDERS"),
        ("allowed_sources", "https://example.com", "give s3://"),
    ],
)
def test_a_setting_that_cannot_work_is_refused(field: str, value: object, reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        ServiceSettings.model_validate({field: value})


def test_a_secret_in_an_address_is_not_repeated_by_the_error() -> None:
    with pytest.raises(ValidationError) as caught:
        ServiceSettings(mlflow_tracking_uri="http://me:secret@mlflow:5000")

    assert "secret" not in str(caught.value)


def test_a_password_of_the_database_is_not_repeated_by_the_error() -> None:
    with pytest.raises(ValidationError) as caught:
        ServiceSettings(database_url="postgresql://me:hunter2@db/jobs")

    assert "hunter2" not in str(caught.value) + describe_faults(caught.value)


def test_by_default_jobs_read_no_folder_and_no_bucket(tmp_path: Path) -> None:
    reach = ServiceSettings(home=tmp_path).reach

    assert reach.folders == ()
    assert reach.sources == ("hub://*",)
    assert str(tmp_path) in reach.closed_folders


def test_lists_have_commas_between_their_members(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HYPLORA_HOME", str(tmp_path))
    monkeypatch.setenv("HYPLORA_ALLOWED_FOLDERS", "/models, /rows")
    monkeypatch.setenv("HYPLORA_ALLOWED_SOURCES", "s3://rows/train,hub://openai/*")
    monkeypatch.setenv("HYPLORA_ALLOWED_BASE_MODELS", "Qwen/*")

    reach = ServiceSettings().reach

    assert reach.folders == ("/models", "/rows")
    assert reach.sources == ("s3://rows/train", "hub://openai/*")
    assert reach.base_models == ("Qwen/*",)


def test_faults_of_the_environment_are_told_on_one_line() -> None:
    with pytest.raises(ValidationError) as caught:
        ServiceSettings.model_validate({"port": 70000, "max_attempts": 0})

    assert describe_faults(caught.value) == (
        "HYPLORA_PORT: Input should be less than or equal to 65535; "
        "HYPLORA_MAX_ATTEMPTS: Input should be greater than 0"
    )
