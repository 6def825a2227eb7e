"""Where workers keep what takes long to make again: downloads and tokenized rows."""

import os
import time
from contextlib import suppress
from pathlib import Path

_UNUSED_AFTER_S = 30 * 24 * 3600.0


def cache_folder(name: str = "") -> Path:
    """A folder in HYPLORA_CACHE, by default in `hyplora` of the user's cache folder."""
    user_cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return Path(os.environ.get("HYPLORA_CACHE") or user_cache / "hyplora").expanduser() / name


def remove_unused(folder: Path) -> None:
    """Remove the files of a cache folder that nobody has touched for a month."""
    for path in folder.iterdir():
        with suppress(FileNotFoundError):  # another worker may remove it first
            if time.time() - path.stat().st_mtime > _UNUSED_AFTER_S:
                path.unlink()
