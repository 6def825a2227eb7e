import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from service import openapi
from tests.unit.service.stage import Stage

_EXPLAINED = (
    "FinetuneSpec",
    "SearchSpec",
    "EvaluateSpec",
    "CompareSpec",
    "AnalyzeSpec",
    "HypLoraSpec",
    "JobRead",
    "ReportFileRead",
    "TrialRead",
    "DryRunRead",
    "FineTuningJobCreate",
    "FineTuningJobRead",
    "HypLoraOptions",
    "EventRead",
    "KeyCreate",
    "KeyCreated",
    "AuditRead",
    "SeriesRead",
    "MetricsRead",
    "CheckpointRead",
    "ArtifactRead",
    "CapabilitiesRead",
    "LimitsRead",
    "AliasChange",
    "ModelRead",
    "VersionRead",
    "AliasRead",
    "LineageNode",
    "LineageEdge",
    "Problem",
)
METHODS = {"get", "post", "put", "patch", "delete"}


@pytest.fixture
async def description(stage: Stage) -> dict[str, Any]:
    return await stage.get("/openapi.json")


def operations(description: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in description["paths"].items():
        for method in METHODS & methods.keys():
            yield f"{method} {path}", methods[method]


def references(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


async def test_the_description_is_openapi_3_1(description: dict[str, Any]) -> None:
    assert description["openapi"].startswith("3.1")
    assert description["info"]["title"] == "hyplora"


async def test_every_reference_leads_somewhere(description: dict[str, Any]) -> None:
    for reference in references(description):
        node: Any = description
        for key in reference.removeprefix("#/").split("/"):
            node = node[key]


async def test_every_operation_has_one_known_tag_a_sentence_and_an_id(
    description: dict[str, Any],
) -> None:
    tags = {tag["name"] for tag in description["tags"]}
    ids = [operation["operationId"] for _, operation in operations(description)]
    for name, operation in operations(description):
        assert len(operation["tags"]) == 1, name
        assert set(operation["tags"]) <= tags, name
        assert operation["description"], name
    assert len(ids) == len(set(ids))


async def test_every_answer_has_a_schema(description: dict[str, Any]) -> None:
    for name, operation in operations(description):
        success = next(code for code in operation["responses"] if code.startswith("2"))
        if success == "204":
            continue
        for media_type, content in operation["responses"][success]["content"].items():
            assert "schema" in content, (name, media_type)


async def test_every_refusal_is_a_problem_document(description: dict[str, Any]) -> None:
    for name, operation in operations(description):
        if not operation.get("security"):
            continue
        assert {"401", "403", "422", "429", "500", "503"} <= operation["responses"].keys(), name
        for code, response in operation["responses"].items():
            if code[0] in "45":
                assert list(response["content"]) == ["application/problem+json"], (name, code)
    assert "HTTPValidationError" not in str(list(references(description)))


async def test_every_operation_but_the_probes_asks_for_a_key(description: dict[str, Any]) -> None:
    for name, operation in operations(description):
        guarded = name.partition(" ")[2] not in {"/healthz", "/readyz"}
        assert bool(operation.get("security")) == guarded, name


async def test_the_fields_of_a_job_are_explained(description: dict[str, Any]) -> None:
    schemas = description["components"]["schemas"]
    for schema in _EXPLAINED:
        for field, definition in schemas[schema]["properties"].items():
            assert definition.keys() & {"description", "$ref"}, (schema, field)


async def test_an_upload_is_described_as_a_form_with_a_file(description: dict[str, Any]) -> None:
    body = description["paths"]["/v1/files"]["post"]["requestBody"]
    form = body["content"]["multipart/form-data"]["schema"]
    assert form["required"] == ["file"]


async def test_a_report_is_described_as_json_and_as_markdown(description: dict[str, Any]) -> None:
    answer = description["paths"]["/v1/jobs/{job_id}/report"]["get"]["responses"]["200"]
    assert set(answer["content"]) == {"application/json", "text/markdown"}


async def test_events_are_described_as_json_and_as_a_stream(description: dict[str, Any]) -> None:
    answer = description["paths"]["/v1/jobs/{job_id}/events"]["get"]["responses"]["200"]
    assert set(answer["content"]) == {"application/json", "text/event-stream"}


async def test_operations_are_named_as_a_client_would_call_them(
    description: dict[str, Any],
) -> None:
    for name, operation in operations(description):
        assert re.fullmatch(r"[a-z]+(_[a-z]+)+", operation["operationId"]), name
        assert operation["summary"], name


async def test_the_committed_description_is_that_of_the_service(
    description: dict[str, Any],
) -> None:
    committed = json.loads(openapi.PATH.read_text(encoding="utf-8"))
    described = openapi.description()

    assert described["paths"] == description["paths"]
    assert committed == described, (
        f"the API is no longer as docs/openapi.json describes it; run `{openapi.COMMAND}`, look at "
        "the difference and commit it"
    )


def test_the_description_is_written_the_same_each_time() -> None:
    assert openapi.text_of(openapi.description()) == openapi.text_of(openapi.description())
