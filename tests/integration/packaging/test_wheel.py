"""The wheel: what it holds, and that it stands alone."""

import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    command += ["--no-build-isolation", "--wheel-dir", str(folder), str(REPOSITORY)]
    subprocess.run(command, check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def test_the_wheel_holds_the_packages_under_their_fixed_names_and_nothing_else(
    wheel: Path,
) -> None:
    with zipfile.ZipFile(wheel) as archive:
        top_level = {name.split("/")[0] for name in archive.namelist()}
    packages = {name for name in top_level if not name.endswith(".dist-info")}
    assert packages == {"service", "workers", "jobs", "hyplora", "deploy"}


def test_the_wheel_brings_the_database_migrations(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert "service/migrations/env.py" in names
    assert any(name.startswith("service/migrations/versions/") for name in names)


def test_the_adapter_library_needs_neither_ray_nor_mlflow_nor_a_web_framework(
    wheel: Path, tmp_path: Path
) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = """
        import sys
        absent = ("ray", "mlflow", "fastapi", "sqlalchemy", "typer", "service", "jobs")
        sys.modules.update(dict.fromkeys(absent))
        sys.path.insert(0, sys.argv[1])
        import hyplora
        assert hyplora.__file__.startswith(sys.argv[1]), hyplora.__file__
        assert hyplora.HypLoraConfig(r=4).curvature == 1.0
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)]
    subprocess.run(command, cwd=tmp_path, check=True)
