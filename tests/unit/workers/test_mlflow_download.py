import shutil
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest

from workers.base_model import digest, load_base_model, load_tokenizer, resolve
from workers.errors import BaseModelNotFoundError, BaseModelUnusableError

pytestmark = pytest.mark.integration


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[mlflow.MlflowClient]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    previous = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    client = mlflow.MlflowClient()
    client.create_experiment("models", artifact_location=(tmp_path / "artifacts").as_uri())
    yield client
    mlflow.set_tracking_uri(previous)


def log_folder(client: mlflow.MlflowClient, folder: Path, name: str = "base") -> str:
    """Log a folder in a run of its own and register it; returns the runs:/ URI."""
    experiment = client.get_experiment_by_name("models")
    run = client.create_run(experiment.experiment_id)
    client.log_artifacts(run.info.run_id, str(folder), "files")
    if not client.search_registered_models(f"name='{name}'"):
        client.create_registered_model(name)
    source = f"{run.info.artifact_uri}/files"
    version = client.create_model_version(name, source, run.info.run_id)
    client.set_registered_model_alias(name, "champion", version.version)
    return f"runs:/{run.info.run_id}/files"


def test_every_form_of_mlflow_uri_names_the_same_base_model(
    client: mlflow.MlflowClient, tiny_model_dir: Path
) -> None:
    run_uri = log_folder(client, tiny_model_dir)
    for uri in (run_uri, "models:/base/1", "models:/base@champion", "models:/base/latest"):
        assert digest(uri) == digest(str(tiny_model_dir))
    assert load_base_model("models:/base@champion").name_or_path == "models:/base@champion"
    assert load_tokenizer(run_uri).eos_token == "<|end|>"


def test_a_model_is_downloaded_once_and_an_alias_followed(
    client: mlflow.MlflowClient, tiny_model_dir: Path, tmp_path: Path
) -> None:
    log_folder(client, tiny_model_dir)
    first = resolve("models:/base@champion")
    assert resolve("models:/base/1") == first
    changed = shutil.copytree(tiny_model_dir, tmp_path / "changed")
    (changed / "chat_template.jinja").write_text("{{ messages }}")
    log_folder(client, changed)
    assert resolve("models:/base@champion") == resolve("models:/base/2") != first
    assert sorted(path.name for path in Path(first).parent.iterdir()) == sorted(
        Path(resolve(f"models:/base/{version}")).name for version in (1, 2)
    )


def test_the_layout_of_mlflows_transformers_flavor_is_understood(
    client: mlflow.MlflowClient, tiny_model_dir: Path, tmp_path: Path
) -> None:
    logged = tmp_path / "logged"
    shutil.copytree(tiny_model_dir, logged / "model")
    (logged / "components" / "tokenizer").mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (logged / "model" / name).rename(logged / "components" / "tokenizer" / name)
    log_folder(client, logged)
    assert load_base_model("models:/base/1").config.model_type == "llama"
    assert load_tokenizer("models:/base/1").chat_template is not None


@pytest.mark.parametrize(
    "uri",
    ["models:/nothing/1", "models:/nothing@champion", "models:/nothing/latest", "runs:/0/files"],
)
def test_what_mlflow_does_not_have_is_not_found(uri: str, client: mlflow.MlflowClient) -> None:
    with pytest.raises(BaseModelNotFoundError, match="check the URI") as caught:
        resolve(uri)
    assert repr(uri) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_server_that_does_not_answer_is_named(
    client: mlflow.MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    mlflow.set_tracking_uri("http://127.0.0.1:9")
    with pytest.raises(BaseModelNotFoundError, match=r"http://127\.0\.0\.1:9.*server answers"):
        resolve("models:/base@champion")


def test_a_registered_adapter_is_no_base_model(client: mlflow.MlflowClient, tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    log_folder(client, tmp_path / "adapter")
    with pytest.raises(BaseModelUnusableError, match="it holds an adapter"):
        resolve("models:/base@champion")
