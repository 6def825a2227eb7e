"""Specs that were made to run code, read what is not theirs, or break the service."""

import json
from collections.abc import AsyncIterator
from copy import deepcopy
from typing import Any

import pytest

from tests.unit.service.stage import Stage, field_errors

SPEC: dict[str, Any] = {
    "kind": "finetune",
    "name": "sums",
    "base_model": "tiny",
    "data": {"train": f"file-{0:016x}"},
}
OWN_KEY = f"hyp_{0:016x}_{'A' * 43}"


def with_value(path: str, value: object, spec: dict[str, Any] = SPEC) -> dict[str, Any]:
    """A spec that is sound but for one field, named by its path."""
    changed = deepcopy(spec)
    *sections, last = path.split(".")
    holder = changed
    for section in sections:
        holder = holder.setdefault(section, {})
    holder[last] = value
    return changed


INVALID: dict[str, tuple[str, object]] = {
    # fields that do not exist: nothing of the libraries' own can be set through a spec
    "trust_remote_code": ("trust_remote_code", True),
    "trust_remote_code of the training": ("training.trust_remote_code", True),
    "trust_remote_code of the adapter": ("adapter.trust_remote_code", True),
    "trust_remote_code of the data": ("data.trust_remote_code", True),
    "auto_map": ("adapter.auto_mapping", {"base_model_class": "os.system"}),
    "a module to import": ("adapter.megatron_core", "antigravity"),
    "a command": ("entrypoint", "rm -rf /"),
    "a runtime environment": ("runtime_env", {"pip": ["evil"]}),
    "environment variables": ("resources.env_vars", {"LD_PRELOAD": "evil.so"}),
    "an endpoint of S3": ("data.endpoint_url", "http://169.254.169.254"),
    "options of the storage": ("data.storage_options", {"client_kwargs": {}}),
    "another storage": ("storage_path", "/etc"),
    "another project": ("project", "admin"),
    "another tracking server": ("tracking_uri", "http://evil.example"),
    "a prototype": ("__proto__", {"kind": "finetune"}),
    "a constructor": ("constructor", {"prototype": {}}),
    "a class": ("adapter.__class__", "dict"),
    # names that a shell, a path or a log would take for something else
    "a path for a name": ("name", "../../etc/passwd"),
    "a hidden name": ("name", ".bashrc"),
    "an option for a name": ("name", "-rf"),
    "a command for a name": ("name", "a;id"),
    "a substitution for a name": ("name", "$(id)"),
    "back ticks for a name": ("name", "`id`"),
    "a line feed after a name": ("name", "sums\n"),
    "a header for a name": ("name", "sums\r\nSet-Cookie: a=b"),
    "a NUL in a name": ("name", "sums\x00"),
    "wide letters for a name": ("name", "\uff53\uff55\uff4d"),
    "an empty name": ("name", ""),
    "a long name": ("name", "a" * 65),
    "a path for a model": ("registry.model_name", "a/../../b"),
    "an alias of MLflow's": ("registry.alias", "latest"),
    "a quote in a tag": ("tags", ["a'--"]),
    "a line feed in a tag": ("tags", ["a\nb"]),
    "seventeen tags": ("tags", [f"t{number}" for number in range(17)]),
    "a path for a key of the metadata": ("metadata", {"a/b": "c"}),
    "a NUL in the metadata": ("metadata", {"a": "b\x00c"}),
    "a long value of the metadata": ("metadata", {"a": "b" * 513}),
    "an object in the metadata": ("metadata", {"a": {"b": "c"}}),
    # numbers
    "a negative rank": ("adapter.r", -1),
    "a rank of zero": ("adapter.r", 0),
    "a rank beyond 64 bits": ("adapter.r", 2**64),
    "a rank of a thousand digits": ("adapter.r", 10**1000),
    "half a rank": ("adapter.r", 0.5),
    "an operator for a rank": ("adapter.r", {"$gt": 0}),
    "NaN": ("adapter.alpha", float("nan")),
    "Infinity": ("adapter.alpha", float("inf")),
    "no learning rate": ("training.learning_rate", 1e-400),
    "a negative seed": ("training.seed", -1),
    "a priority out of range": ("priority", 101),
    "a priority beyond a double": ("priority", 10**400),
    "negative workers": ("resources.num_workers", -1),
    "a million workers": ("resources.num_workers", 1_000_000),
    "workers that fall": ("resources.num_workers", [8, 2]),
    "a hundred GPUs": ("resources.gpus_per_worker", 100),
    # a character that databases cannot keep, wherever a text may stand
    "a NUL in a base model": ("base_model", "tiny\x00/etc"),
    "a NUL among the columns": ("data.columns", {"instruction": "a\x00"}),
    "a NUL in a pattern": ("adapter.target_modules", "q_proj\x00"),
    "a NUL in a key": ("adapter.rank_pattern", {"q\x00": 8}),
    # sources that are none
    "an address": ("data.train", "http://169.254.169.254/latest/meta-data/iam"),
    "an address with TLS": ("data.train", "https://evil.example/rows.jsonl"),
    "an address in another": ("data.train", "file:///rows::http://127.0.0.1:8265/api/jobs/"),
    "a cache of an address": ("data.train", "simplecache::http://127.0.0.1/rows"),
    "an archive at an address": ("data.train", "zip://rows.jsonl::s3://bucket/a.zip"),
    "a key in an address": ("data.train", "s3://AKIAAAAAAAAAAAAAAAAA:secret@bucket/rows"),
    "a host and a port": ("data.train", "s3://127.0.0.1:9000/bucket/rows"),
    "a way up in a bucket": ("data.train", "s3://bucket/../other/rows"),
    "a way up in a folder": ("data.train", "file:///allowed/../etc/passwd"),
    "a file of another host": ("data.train", "file://evil.example/share/rows"),
    "a relative path": ("data.train", "../../etc/passwd"),
    "an absolute path": ("data.train", "/etc/passwd"),
    "gopher": ("data.train", "gopher://127.0.0.1:6379/_FLUSHALL"),
    "a pipe": ("data.train", "|id"),
    "a data URL": ("data.train", "data:text/plain,{}"),
    "a line feed in an address": ("data.train", "s3://bucket/a\r\nHost: evil.example"),
    "a NUL in an address": ("data.train", "s3://bucket/a\x00b"),
    "a file id that goes on": ("data.train", f"file-{0:016x}/../../etc"),
    "a file id and a line feed": ("data.train", f"file-{0:016x}\n"),
    "a long address": ("data.train", "s3://bucket/" + "a" * 3000),
    "a path for a data set": ("data.train", {"dataset": "../../etc"}),
    "a folder for a data set": ("data.train", {"dataset": "/etc"}),
    "files of a data set": ("data.train", {"dataset": "json", "data_files": "/etc/passwd"}),
    "a script of a data set": ("data.train", {"dataset": "a/b", "trust_remote_code": True}),
    "a path for an evaluation set": ("data.evaluation_sets", {"../a": f"file-{0:016x}"}),
    "a hidden evaluation set": ("data.evaluation_sets", {"..": f"file-{0:016x}"}),
    "a list for an object": ("data", [["train", "x"]]),
    "a text for an object": ("adapter", "hyplora"),
    "an unknown kind": ("kind", "__import__('os').system('id')"),
    "no kind": ("kind", None),
    "a pickled kind": ("kind", "gASVKAAAAAAAAACMBXBvc2l4lIwGc3lzdGVtlJOU"),
}


@pytest.mark.parametrize(("path", "value"), INVALID.values(), ids=INVALID.keys())
async def test_a_hostile_value_is_refused_with_its_field(
    unmoved: Stage, path: str, value: object
) -> None:
    body = json.dumps(with_value(path, value))
    response = await unmoved.client.post(
        "/v1/jobs", content=body, headers={"Content-Type": "application/json"}
    )
    problem = response.json()
    assert (response.status_code, problem["code"]) == (422, "spec-invalid"), problem
    section = path.partition(".")[0]
    assert any(field.startswith(section) for field in field_errors(problem)), problem
    assert len(response.content) < 4096


NOT_ALLOWED: dict[str, tuple[str, object]] = {
    "a folder for a base model": ("base_model", "/etc"),
    "a folder upwards": ("base_model", "../../etc"),
    "a folder of the user": ("base_model", "~/.ssh"),
    "a base model behind an address": ("base_model", "https://evil.example/model"),
    "a base model in a bucket": ("base_model", "s3://bucket/model"),
    "a base model of MLflow's artifacts": ("base_model", "mlflow-artifacts:/0/model"),
    "a base model of another MLflow": ("base_model", "models://evil.example/a/1"),
    "a run's artifacts upwards": ("base_model", "runs:/0123/../../other/model"),
    "a line feed in a base model": ("base_model", "tiny\n--trust-remote-code"),
    "an option for a base model": ("base_model", "--help"),
    "a command for a base model": ("base_model", "tiny; rm -rf /"),
    "other letters for a base model": ("base_model", "t\u0456ny"),
    "a file of the node": ("data.train", "file:///etc/passwd"),
    "the service's own token": ("data.validation", "file:///root/.hyplora/token"),
    "the memory of a process": ("data.train", "file:///proc/self/environ"),
    "a bucket": ("data.train", "s3://others/rows.jsonl"),
    "a bucket of Google's": ("data.evaluation_sets", {"exam": "gs://others/rows.jsonl"}),
    "a container": ("data.train", "abfs://rows@others.dfs.core.windows.net/rows.jsonl"),
    "an endpoint in a query": ("data.train", "s3://bucket/rows?endpoint_url=http://127.0.0.1"),
}


@pytest.mark.parametrize(("path", "value"), NOT_ALLOWED.values(), ids=NOT_ALLOWED.keys())
async def test_what_jobs_may_not_read_is_refused_with_its_field(
    unmoved: Stage, path: str, value: object
) -> None:
    response = await unmoved.client.post("/v1/jobs", json=with_value(path, value))
    problem = response.json()
    assert (response.status_code, problem["code"]) == (422, "reference-not-allowed"), problem
    assert any(field.startswith(path) for field in field_errors(problem)), problem


@pytest.mark.parametrize("kind", ["evaluate", "analyze"])
async def test_an_adapter_in_a_folder_is_refused_too(unmoved: Stage, kind: str) -> None:
    task = {"benchmark": "gsm8k", "data": f"file-{0:016x}"}
    spec: dict[str, Any] = {"kind": kind, "name": "exam", "base_model": "tiny"}
    if kind == "evaluate":
        spec |= {"tasks": [task], "models": ["base", "/etc/adapter"]}
    else:
        spec |= {"data": task["data"], "model": "/etc/adapter"}
    problem = (await unmoved.client.post("/v1/jobs", json=spec)).json()
    assert problem["code"] == "reference-not-allowed"
    assert set(field_errors(problem)) <= {"models.1.adapter", "model.adapter"}


SECRETS: dict[str, tuple[str, object]] = {
    "a key of this service": ("metadata", {"key": f"it is {OWN_KEY}"}),
    "a key for a key": ("metadata", {"a": "b", "hf_" + "a" * 34: "c"}),
    "a token of the hub": ("metadata", {"token": "hf_" + "a" * 34}),
    "a key of AWS": ("tags", ["AKIA" + "A" * 16]),
    "a key of OpenAI": ("metadata", {"key": "sk-proj-" + "a" * 40}),
    "a token of GitHub": ("metadata", {"token": "ghp_" + "a" * 36}),
    "a private key": ("metadata", {"key": "-----BEGIN RSA PRIVATE KEY-----\nMIIE"}),
    "a password in an address": ("base_model", "https://me:hunter2@example.com/model"),
    "a password in the metadata": ("metadata", {"db": "postgresql://me:hunter2@db/jobs"}),
    "a key among the columns": ("data.columns", {"instruction": OWN_KEY}),
}


@pytest.mark.parametrize(("path", "value"), SECRETS.values(), ids=SECRETS.keys())
async def test_a_secret_is_refused_and_not_repeated(
    unmoved: Stage, path: str, value: object, caplog: pytest.LogCaptureFixture
) -> None:
    response = await unmoved.client.post("/v1/jobs", json=with_value(path, value))
    assert (response.status_code, response.json()["code"]) == (422, "secret-in-spec")
    shown = response.text + caplog.text
    assert not any(secret in shown for secret in (OWN_KEY, "hunter2", "A" * 16, "a" * 34, "MIIE"))


async def test_a_dry_run_and_a_rerun_are_held_to_the_same(stage: Stage) -> None:
    train = await stage.upload()
    spec = with_value("base_model", "/etc", with_value("data.train", train))
    dry = await stage.client.post("/v1/jobs?dry_run=true", json=spec)
    assert dry.json()["code"] == "reference-not-allowed"
    job_id = await stage.submit(train=train)
    for overrides in ({"base_model": "/etc"}, {"data": {"train": "s3://others/rows"}}):
        again = await stage.client.post(f"/v1/jobs/{job_id}/rerun", json={"overrides": overrides})
        assert again.json()["code"] == "reference-not-allowed"
    assert len((await stage.get("/v1/jobs"))["data"]) == 1
    assert stage.ray.requests == []


JSON = "application/json"
SENT = json.dumps(SPEC).encode()
ENTITY = b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]>'

BODIES: dict[str, tuple[bytes, str]] = {
    "no body": (b"", JSON),
    "no JSON": (b"{", JSON),
    "an array": (b"[]", JSON),
    "a text": (b'"finetune"', JSON),
    "null": (b"null", JSON),
    "arrays 100 000 deep": (b"[" * 100_000, JSON),
    "objects 50 000 deep": (b'{"a":' * 50_000, JSON),
    "a number of 100 000 digits": (b"9" * 100_000, JSON),
    "no UTF-8": (b'{"name": "\xff"}', JSON),
    "half a surrogate pair": (b'{"name": "\\ud800"}', JSON),
    "half a surrogate pair for a key": (b'{"\\ud800": 1}', JSON),
    "gzip": (b"\x1f\x8b\x08\x00", JSON),
    "60 000 keys": (b"{" + b",".join(b'"%d":1' % n for n in range(60_000)) + b"}", JSON),
    "another type": (SENT, "text/plain"),
    "a form": (b"kind=finetune&name=sums", "application/x-www-form-urlencoded"),
    "XML with an entity": (ENTITY, "application/xml"),
}


@pytest.mark.parametrize(("body", "kind"), BODIES.values(), ids=BODIES.keys())
async def test_a_body_that_is_no_spec_is_refused(unmoved: Stage, body: bytes, kind: str) -> None:
    headers = {"Content-Type": kind}
    response = await unmoved.client.post("/v1/jobs", content=body, headers=headers)
    problem = response.json()
    assert (response.status_code, problem["code"]) == (422, "spec-invalid"), problem
    assert len(response.content) < 8192, "what was sent is not sent back"


@pytest.mark.parametrize("is_chunked", [False, True])
async def test_a_body_without_end_is_refused(unmoved: Stage, is_chunked: bool) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(64):
            yield b" " * (1 << 16)

    content = chunks() if is_chunked else b" " * (1 << 22)
    response = await unmoved.client.post("/v1/jobs", content=content)
    assert (response.status_code, response.json()["code"]) == (413, "request-too-large")


async def test_of_a_field_that_is_given_twice_the_checked_value_is_the_one_that_counts(
    stage: Stage,
) -> None:
    train = await stage.upload()
    body = json.dumps(with_value("data.train", train))[:-1] + ', "base_model": "other"}'
    response = await stage.client.post(
        "/v1/jobs", content=body, headers={"Content-Type": "application/json"}
    )
    assert response.json()["spec"]["base_model"] == "other"
    body = body.replace('"other"', '"/etc"')
    refused = await stage.client.post(
        "/v1/jobs", content=body, headers={"Content-Type": "application/json"}
    )
    assert refused.json()["code"] == "reference-not-allowed"
