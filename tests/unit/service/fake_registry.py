"""A model registry in memory, as the control plane sees it."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from service.boundaries import Artifact, ModelVersion, RegisteredModel
from service.errors import MlflowUnavailableError, RefusedError

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
SAFETENSORS = (2).to_bytes(8, "little") + b"{}"
ADAPTER = {
    "adapter_config.json": b'{"peft_type": "HYPLORA"}',
    "adapter_model.safetensors": SAFETENSORS,
}


class FakeRegistry:
    """Models and versions that tests put there through `register`."""

    def __init__(self) -> None:
        self.is_away = False
        self.num_calls = 0
        self.held: dict[str, RegisteredModel] = {}
        self.held_versions: dict[tuple[str, int], ModelVersion] = {}
        self.contents: dict[tuple[str, int], dict[str, bytes]] = {}

    def register(
        self,
        name: str,
        *,
        alias: str | None = None,
        run_id: str | None = None,
        tags: Mapping[str, str] | None = None,
        files: Mapping[str, bytes] = ADAPTER,
    ) -> int:
        """Add a version, as a driver does, and return its number."""
        model = self.held.setdefault(name, RegisteredModel(name, BEGAN))
        number = (model.newest_version or 0) + 1
        aliases = dict(model.aliases) | ({alias: number} if alias else {})
        self.held[name] = replace(model, newest_version=number, aliases=aliases)
        self.held_versions[name, number] = ModelVersion(
            name, number, BEGAN + timedelta(minutes=number), run_id, dict(tags or {})
        )
        self.contents[name, number] = dict(files)
        return number

    async def models(self) -> Sequence[RegisteredModel]:
        await self._arrive()
        return list(self.held.values())

    async def model(self, name: str) -> RegisteredModel | None:
        await self._arrive()
        return self.held.get(name)

    async def versions(
        self, name: str, limit: int, below: int | None = None
    ) -> Sequence[ModelVersion]:
        await self._arrive()
        found = [
            version
            for (model, number), version in self.held_versions.items()
            if model == name and (below is None or number < below)
        ]
        return sorted(found, key=lambda version: -version.version)[:limit]

    async def version(self, name: str, version: int) -> ModelVersion | None:
        await self._arrive()
        return self.held_versions.get((name, version))

    async def set_alias(self, name: str, alias: str, version: int) -> None:
        await self._arrive()
        if (name, version) not in self.held_versions:
            raise RefusedError("MLflow refused: no such version")
        model = self.held[name]
        self.held[name] = replace(model, aliases={**model.aliases, alias: version})

    async def remove_alias(self, name: str, alias: str) -> None:
        await self._arrive()
        model = self.held[name]
        left = {key: version for key, version in model.aliases.items() if key != alias}
        self.held[name] = replace(model, aliases=left)

    async def delete_version(self, name: str, version: int) -> None:
        await self._arrive()
        if self.held_versions.pop((name, version), None) is None:
            raise RefusedError("MLflow refused: no such version")

    async def delete_model(self, name: str) -> None:
        await self._arrive()
        if self.held.pop(name, None) is None:
            raise RefusedError("MLflow refused: no such model")
        for key in [key for key in self.held_versions if key[0] == name]:
            del self.held_versions[key]

    async def files(self, name: str, version: int) -> Sequence[Artifact]:
        await self._arrive()
        return [
            Artifact(path, len(content)) for path, content in self.contents[name, version].items()
        ]

    async def fetch(self, name: str, version: int, path: str, folder: Path) -> Path:
        await self._arrive()
        target = folder / path
        await asyncio.to_thread(target.write_bytes, self.contents[name, version][path])
        return target

    async def _arrive(self) -> None:
        await asyncio.sleep(0)
        self.num_calls += 1
        if self.is_away:
            raise MlflowUnavailableError("MLflow is out of reach")
