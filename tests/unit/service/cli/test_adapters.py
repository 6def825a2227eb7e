"""Adapters out of the service, answering in a process of their own."""

import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.cli.adapters import ModelReference, loading_snippet
from service.cli.errors import CliError
from tests.unit.service.cli.conftest import Outcome, ScriptedService, problem

Run = Callable[..., Outcome]
HYPLORA_CONFIG = {"peft_type": "HYPLORA", "base_model_name_or_path": "org/base"}


INFO = {"version": "1", "mlflow_tracking_uri": "http://mlflow", "ray_dashboard_url": "http://x"}


@pytest.fixture
def registry(service: ScriptedService) -> None:
    """Let the service have an adapter, `sums`, and another model, `trees`."""
    service.on("GET", "/v1/info", INFO)
    for version in ("1", "@champion"):
        content = tar_of({"adapter_config.json": json.dumps(HYPLORA_CONFIG).encode()})
        service.on("GET", download_of("sums", version), httpx.Response(200, content=content))
    refusal = "trees/1 is a registered model, but no adapter: it has no adapter_config.json"
    service.on(
        "GET", download_of("trees", "1"), problem(404, "model-version-without-adapter", refusal)
    )
    for name, version, code in (
        ("sums", "@gone", "model-alias-not-found"),
        ("sums", "7", "model-version-not-found"),
        ("gone", "1", "model-not-found"),
        ("gone", "@champion", "model-not-found"),
    ):
        service.on("GET", download_of(name, version), problem(404, code, "it is not there"))


def download_of(name: str, version: str) -> str:
    return f"/v1/models/{name}/versions/{version}/download"


def tar_of(files: Mapping[str, bytes], **fields: Any) -> bytes:
    """A tar of files, each with other fields of its entry."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            for field, value in fields.items():
                setattr(entry, field, value)
            tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def write_config(folder: Path, config: Any = HYPLORA_CONFIG) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("text", "uri"),
    [
        ("sums@champion", "models:/sums@champion"),
        ("sums/12", "models:/sums/12"),
        ("models:/sums/12", "models:/sums/12"),
        ("models:/a.b-c_d@v.1", "models:/a.b-c_d@v.1"),
    ],
)
def test_a_reference_is_read_in_each_of_its_forms(text: str, uri: str) -> None:
    assert ModelReference.parse(text).uri == uri


@pytest.mark.parametrize(
    "text",
    ["sums", "sums@", "@champion", "sums/", "sums/latest", "sums/1/2", "./sums", "a@b@c", ""],
)
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(CliError, match="give NAME@ALIAS"):
        ModelReference.parse(text)


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize("reference", ["sums@champion", "sums/1"])
def test_pull_downloads_an_adapter_and_says_how_to_load_it(
    reference: str, hyplora: Run, tmp_path: Path
) -> None:
    folder = tmp_path / "new" / "pulled"
    outcome = hyplora("pull", reference, folder)
    assert outcome.exit_code == 0, outcome.stderr
    assert [path.name for path in folder.iterdir()] == ["adapter_config.json"]
    assert [path.name for path in folder.parent.iterdir()] == ["pulled"], "no scratch is left"
    assert outcome.stdout == (
        "import hyplora, peft, transformers\n"
        "model = peft.PeftModel.from_pretrained("
        f'transformers.AutoModelForCausalLM.from_pretrained("org/base"), "{folder}")\n'
    )


@pytest.mark.usefixtures("registry")
def test_pull_takes_a_folder_that_is_there_but_empty(hyplora: Run, tmp_path: Path) -> None:
    (tmp_path / "pulled").mkdir()
    assert hyplora("pull", "sums/1", tmp_path / "pulled").exit_code == 0


def test_pull_touches_no_folder_that_holds_something(
    hyplora: Run, service: ScriptedService, tmp_path: Path
) -> None:
    (tmp_path / "mine").write_text("")
    for target in (tmp_path, tmp_path / "mine"):
        outcome = hyplora("pull", "sums/1", target)
        assert outcome.exit_code == 1
        assert "is not an empty folder" in outcome.stderr
    assert not service.requests


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize("reference", ["sums@gone", "sums/7", "gone/1", "gone@champion"])
def test_pull_says_what_the_registry_does_not_have(
    reference: str, hyplora: Run, tmp_path: Path
) -> None:
    outcome = hyplora("pull", reference, tmp_path / "pulled")
    assert outcome.exit_code == 1
    assert f"has no {reference}: " in outcome.stderr
    assert outcome.stderr.count("\n") == 1
    assert not (tmp_path / "pulled").exists()


@pytest.mark.usefixtures("registry")
def test_pull_refuses_a_registered_model_that_is_no_adapter(hyplora: Run, tmp_path: Path) -> None:
    outcome = hyplora("pull", "trees/1", tmp_path / "pulled")
    assert "trees/1 is a registered model, but no adapter" in outcome.stderr
    assert not (tmp_path / "pulled").exists()


@pytest.mark.parametrize(
    "content",
    [
        tar_of({"../escaped": b"x"}),
        tar_of({"/escaped": b"x"}),
        tar_of({"inner/escaped": b"x"}),
        tar_of({".hidden": b"x"}),
        tar_of({"link": b""}, type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        tar_of({"link": b""}, type=tarfile.LNKTYPE, linkname="../../secret"),
        tar_of({"folder": b""}, type=tarfile.DIRTYPE),
        tar_of({"pipe": b""}, type=tarfile.FIFOTYPE),
        tar_of({"config.json": b"{}"}),
        tar_of({"adapter_config.json": b"{}" * 400})[:700],
        b"no tar at all",
        b"",
    ],
    ids=range(12),
)
def test_pull_unpacks_nothing_but_files_of_an_adapter_and_leaves_nothing_else(
    content: bytes, hyplora: Run, service: ScriptedService, tmp_path: Path
) -> None:
    service.on("GET", download_of("sums", "1"), httpx.Response(200, content=content))
    before = set(tmp_path.rglob("*"))

    outcome = hyplora("pull", "sums/1", tmp_path / "pulled")

    assert outcome.exit_code == 1
    assert "the service sent" in outcome.stderr
    assert set(tmp_path.rglob("*")) == before
    assert not Path("/escaped").exists()


def test_pull_of_a_connection_that_breaks_leaves_nothing(
    hyplora: Run, service: ScriptedService, tmp_path: Path
) -> None:
    whole = tar_of({"adapter_config.json": b"{}" * 4000})

    def broken() -> Iterator[bytes]:
        yield whole[:2000]
        raise httpx.ReadError("connection reset")

    service.on("GET", download_of("sums", "1"), lambda _: httpx.Response(200, content=broken()))
    before = set(tmp_path.rglob("*"))

    outcome = hyplora("pull", "sums/1", tmp_path / "pulled")

    assert outcome.exit_code == 1
    assert set(tmp_path.rglob("*")) == before


def test_a_lora_adapter_loads_without_this_project(tmp_path: Path) -> None:
    config = {"peft_type": "LORA", "base_model_name_or_path": "org/base"}
    snippet = loading_snippet(write_config(tmp_path / "lora", config))
    assert snippet.startswith("import peft, transformers\n")


def test_a_base_model_in_the_registry_is_fetched_from_there(tmp_path: Path) -> None:
    config = {**HYPLORA_CONFIG, "base_model_name_or_path": "models:/base/1"}
    snippet = loading_snippet(write_config(tmp_path / "adapter", config))
    assert 'mlflow.artifacts.download_artifacts("models:/base/1")' in snippet
    compile(snippet, "snippet", "exec")


@pytest.mark.parametrize("content", ["", "[]", "{}"])
def test_a_folder_that_is_no_adapter_cannot_answer(
    content: str, hyplora: Run, tmp_path: Path
) -> None:
    (tmp_path / "adapter_config.json").write_text(content)
    outcome = hyplora("generate", tmp_path, "1 + 1")
    assert outcome.exit_code == 1
    assert outcome.stderr.startswith(f"error: {tmp_path} ")


def test_a_folder_that_is_not_there_cannot_answer(hyplora: Run, tmp_path: Path) -> None:
    outcome = hyplora("generate", tmp_path / "gone", "1 + 1")
    assert outcome.exit_code == 1
    assert outcome.stderr.startswith(f"error: there is no folder {tmp_path / 'gone'}, and ")


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Commands that were started, each of which ends with code 7."""
    started: list[list[str]] = []

    def start(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        started.append(command)
        return subprocess.CompletedProcess(command, 7)

    monkeypatch.setattr(subprocess, "run", start)
    return started


def test_generate_hands_everything_to_the_worker(
    hyplora: Run, commands: list[list[str]], tmp_path: Path
) -> None:
    folder = write_config(tmp_path / "adapter")
    outcome = hyplora("generate", folder, "--max-new-tokens", "5", "--json", "--", "-1 + 1", "b")
    hyplora("generate", folder, "--no-adapter", "--base-model", "other")
    start = [sys.executable, "-P", "-m", "workers.generate", "--base-model"]
    adapter = ["--adapter", str(folder)]
    rest = ["--max-new-tokens", "5", "--json", "--", "-1 + 1", "b"]
    assert commands == [[*start, "org/base", *adapter, *rest], [*start, "other"]]
    assert outcome.exit_code == 7


@pytest.mark.usefixtures("registry")
def test_generate_fetches_a_registered_adapter_first(
    hyplora: Run, commands: list[list[str]]
) -> None:
    hyplora("generate", "sums@champion", "1 + 1")
    ((*_, base_model, _, folder, _, _),) = commands
    assert base_model == "org/base"
    assert not Path(folder).exists(), "the download is removed"


@pytest.mark.integration
def test_a_pulled_adapter_answers_in_a_fresh_process(tiny_model_dir: Path, tmp_path: Path) -> None:
    from workers.adapter import build_adapter
    from workers.base_model import load_base_model, load_tokenizer
    from workers.generate import generate_batch, render_user_prompt
    from workers.specs import HypLoraSpec

    base, tokenizer = (
        load_base_model(str(tiny_model_dir), "auto"),
        load_tokenizer(str(tiny_model_dir)),
    )
    prompts = [render_user_prompt(tokenizer, "1 + 1")]
    (base_answer,) = generate_batch(base, tokenizer, prompts, 8)
    adapted = build_adapter(base, HypLoraSpec(init_weights=False)).eval()
    adapted.save_pretrained(tmp_path / "adapter")
    (answer,) = generate_batch(adapted, tokenizer, prompts, 8)
    command = [sys.executable, "-m", "service.cli", "generate", str(tmp_path / "adapter"), "1 + 1"]
    options = ["--json", "--max-new-tokens", "8", "--base-model", str(tiny_model_dir)]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"prompt": "1 + 1", "answer": answer}
    assert answer != base_answer
