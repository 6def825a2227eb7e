"""Names beside the dots of a plot, where there is room for them."""

from collections.abc import Sequence
from dataclasses import dataclass

_HEIGHT, _CHARACTER = 11.0, 5.2
"""Size of a letter of nine points (pixels)."""

_GAP = 5.0


@dataclass(frozen=True)
class Box:
    """An area of the plot (pixels, from its lower left corner)."""

    left: float
    bottom: float
    right: float
    top: float

    def overlaps(self, other: "Box") -> bool:
        """Whether two areas share a part."""
        return (
            self.left < other.right
            and other.left < self.right
            and self.bottom < other.top
            and other.bottom < self.top
        )


def place_labels(
    texts: Sequence[str],
    places: Sequence[tuple[float, float]],
    others: Sequence[tuple[float, float]],
    width: float,
) -> list[tuple[float, float] | None]:
    """Put each text right, left, above or below its dot, where it hides no dot and no other text.

    Args:
        texts: One a dot.
        places: Of the dots (pixels).
        others: Places of dots without a text (pixels).
        width: Of the plot (pixels).

    Returns:
        The middle of each text; None where there is no room.
    """
    taken = [Box(x - 3, y - 3, x + 3, y + 3) for x, y in (*places, *others)]
    found: list[tuple[float, float] | None] = []
    for text, (x, y) in zip(texts, places, strict=True):
        half = len(text) * _CHARACTER / 2
        shifts = [(half + _GAP, 0.0), (-half - _GAP, 0.0), (0.0, 9.0), (0.0, -9.0)]
        for dx, dy in shifts:
            box = Box(x + dx - half, y + dy - _HEIGHT / 2, x + dx + half, y + dy + _HEIGHT / 2)
            is_inside = box.left >= 0 and box.right <= width
            if is_inside and not any(map(box.overlaps, taken)):
                taken.append(box)
                found.append((x + dx, y + dy))
                break
        else:
            found.append(None)
    return found
