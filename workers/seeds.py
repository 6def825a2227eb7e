"""Independent random streams from one user seed."""

import hashlib

import torch


def derive_seed(seed: int, *purpose: str | int) -> int:
    """A seed for one purpose, unrelated to those of other purposes; the same on every machine."""
    digest = hashlib.sha256("/".join(map(str, (seed, *purpose))).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1  # torch takes up to 63 bits on every device


def permutation(length: int, seed: int) -> list[int]:
    """The numbers below `length` in an order drawn by `seed`."""
    return torch.randperm(length, generator=torch.Generator().manual_seed(seed)).tolist()
