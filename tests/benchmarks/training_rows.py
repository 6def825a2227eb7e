"""Real word problems as the rows of tests/benchmarks/training.py."""

import gzip
import json
import random
from pathlib import Path

from rich.console import Console

from deploy.demo_assets import ensure_rows
from deploy.demo_rows import read_problems
from workers.cache import cache_folder

FILES = {
    "mawps": "arithmetic/train/mawps_clean.jsonl.gz",
    "gsm8k": "arithmetic/train/gsm8k.jsonl.gz",
}


def write_rows(data: Path, rows_from: str, num_rows: int, seed: int, path: Path) -> str:
    """Draw rows by the seed into a file, and say where they are from."""
    file = data / FILES[rows_from]
    if file.is_file():
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines]
        source = file.name.removesuffix(".jsonl.gz")
    else:
        problems = read_problems(ensure_rows(cache_folder(), Console(stderr=True)))
        rows = [problem.as_row() for problem in problems]
        source = f"asdiv, since {file} is missing"
    if num_rows > len(rows):
        raise SystemExit(f"{num_rows} rows are asked for and {source} has {len(rows)}")
    drawn = random.Random(seed).sample(rows, num_rows)
    fields = ("instruction", "input", "output")
    path.write_text(
        "".join(json.dumps({name: row.get(name, "") for name in fields}) + "\n" for row in drawn)
    )
    return source
