"""What Prometheus gets from a service that runs as a process, over HTTP."""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.service.service_process import ServiceProcess

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ServiceProcess]:
    with closing(ServiceProcess(tmp_path)) as service:
        service.start()
        yield service


def scraped(service: ServiceProcess, key: str) -> dict[str, dict[tuple[str, ...], float]]:
    """Every sample by its name and the values of its labels, in the order of their names."""
    headers = {"Authorization": f"Bearer {key}"}
    response = service.client.get("/metrics", headers=headers)
    assert response.status_code == 200, response.text
    samples: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(response.text):
        for sample in family.samples:
            labels = tuple(sample.labels[name] for name in sorted(sample.labels))
            samples.setdefault(sample.name, {})[labels] = sample.value
    return samples


def scrape_key(service: ServiceProcess) -> str:
    body = {"name": "prometheus", "scopes": ["scrape"]}
    return str(service.client.post("/v1/keys", json=body).json()["key"])


def await_sample(
    service: ServiceProcess, key: str, name: str, labels: tuple[str, ...], value: float
) -> None:
    deadline = time.monotonic() + 60
    while (found := scraped(service, key).get(name, {}).get(labels)) != value:
        assert time.monotonic() < deadline, (name, found)
        time.sleep(0.05)


def test_a_service_with_ray_and_mlflow_down_tells_what_waits_and_who_leads(
    service: ServiceProcess,
) -> None:
    key = scrape_key(service)
    service.submit()

    await_sample(service, key, "hyplora_lease_held", (), 1)
    samples = scraped(service, key)

    assert samples["hyplora_jobs"] == {("finetune", "queued"): 1}
    assert samples["hyplora_queue_depth"][()] == 1
    assert samples["hyplora_live_drivers"][()] == 0
    assert samples["hyplora_reconciler_lag_seconds"][()] >= 0
    assert samples["hyplora_http_requests_total"]["POST", "/v1/jobs", "201"] == 1
    assert samples["process_resident_memory_bytes"][()] > 1e6


def test_followers_are_counted_until_they_hang_up(service: ServiceProcess) -> None:
    key = scrape_key(service)
    events = f"/v1/jobs/{service.submit()}/events"

    with service.client.stream("GET", events, headers={"Accept": "text/event-stream"}) as stream:
        lines = stream.iter_lines()  # kept: the stream closes with its reader
        next(lines)
        await_sample(service, key, "hyplora_followers", ("events",), 1)

    await_sample(service, key, "hyplora_followers", ("events",), 0)


def test_a_service_that_was_killed_counts_anew(service: ServiceProcess) -> None:
    key = scrape_key(service)
    service.submit()
    service.kill()
    service.start()

    samples = scraped(service, key)

    assert ("POST", "/v1/jobs", "201") not in samples["hyplora_http_requests_total"]
    assert samples["hyplora_jobs"] == {("finetune", "queued"): 1}
