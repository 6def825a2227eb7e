"""Which of the options that an answer mentions it means, where it does not say so."""

from collections.abc import Sequence

_FEWEST_LISTED = 3
"""Mentions in a row that count as a list of the options; two, where there are but two."""


def without_listings(mentioned: Sequence[str], labels: Sequence[str]) -> list[str]:
    """Drop the mentions that only repeat the list of options: the first, the second and so on.

    Args:
        mentioned: Labels in the order in which an answer mentions them.
        labels: All labels in the order of the options.
    """
    fewest = min(_FEWEST_LISTED, len(labels))
    kept: list[str] = []
    position = 0
    while position < len(mentioned):
        length = _length_of_listing(mentioned[position:], labels)
        if length >= fewest:
            position += length
        else:
            kept.append(mentioned[position])
            position += 1
    return kept


def _length_of_listing(mentioned: Sequence[str], labels: Sequence[str]) -> int:
    """How many of the first mentions are the first labels in their order."""
    length = 0
    for found, label in zip(mentioned, labels, strict=False):
        if found != label:
            break
        length += 1
    return length
