"""Requests that the API's own description allows, and others, made by Schemathesis by the thousand.

It holds every answer to the description, and looks for answers to requests without a key.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.service.fuzzed_service import FuzzedService, fuzzed_service
from tests.unit.service.stage import TOKEN

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(3600)]

FEWEST_CASES = 2000
SEED = 7
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "allow_header_conformance",
    "ignored_auth",
)


def settings_of(service: FuzzedService) -> str:
    """Schemathesis's settings: ids that exist, most of the time."""
    lines = ["[parameters]"]
    lines += [
        f'"path.{name}" = {{ dictionary = "{name}", probability = 0.7 }}' for name in service.ids
    ]
    for name, values in service.ids.items():
        lines += [f"[dictionaries.{name}]", f"values = {json.dumps(values)}"]
    return "\n".join(lines)


def test_no_request_breaks_the_service_or_its_description(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = tmp_path / "schemathesis.toml"
    with fuzzed_service(tmp_path / "home") as service:
        settings.write_text(settings_of(service))
        command = [str(Path(sys.executable).with_name("schemathesis"))]
        command += ["--config-file", str(settings), "run", f"{service.url}/openapi.json"]
        command += ["--header", f"Authorization: Bearer {TOKEN}", "--checks", ",".join(CHECKS)]
        command += ["--phases", "coverage,fuzzing", "--max-examples", "10", "--seed", str(SEED)]
        command += ["--request-timeout", "120", "--continue-on-failure", "--warnings", "off"]
        ran = subprocess.run(
            command,
            cwd=tmp_path,
            env={**os.environ, "NO_COLOR": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
    assert ran.returncode == 0, ran.stdout[-20_000:]
    counted = re.search(r"(\d+) generated", ran.stdout)
    assert counted is not None, ran.stdout[-2000:]
    with capsys.disabled():
        sys.stdout.write(f" {counted[0]} requests ")
    assert int(counted[1]) >= FEWEST_CASES
