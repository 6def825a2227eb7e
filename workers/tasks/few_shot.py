"""Examples in the prompt: drawn by a seed, and put before a question."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from random import Random

from workers.rows import Turn
from workers.tasks.task import Choices, Question


def draw_shots(
    pool: Sequence[Question], num_shots: int, seed: int, never: Iterable[Question] = ()
) -> tuple[Question, ...]:
    """Draw examples without repetition; the same for the same arguments.

    Args:
        pool: Questions to draw from, such as a benchmark's training rows.
        num_shots: How many.
        seed: Of the draw.
        never: Questions that no example may ask, such as those to be scored.

    Raises:
        ValueError: If fewer questions are left than asked for.
    """
    asked = {question.turns for question in never}
    free = [question for question in pool if question.turns not in asked]
    if len(free) < num_shots:
        raise ValueError(
            f"{num_shots} examples are asked for, and {len(free)} of the {len(pool)} rows to draw "
            "from are none of the questions; give more rows or ask for fewer examples"
        )
    return tuple(Random(seed).sample(free, num_shots))  # noqa: S311  # nosec B311 # rows, no secret


def with_shots(question: Question, shots: Sequence[Question]) -> Question:
    """Put examples before a question: as turns, and as text before each option's context.

    Raises:
        ValueError: If the question has options and an example has none.
    """
    turns = tuple(turn for shot in shots for turn in _as_turns(shot)) + question.turns
    return replace(question, turns=turns, choices=_choices_with_shots(question.choices, shots))


def _as_turns(shot: Question) -> tuple[Turn, ...]:
    return (*shot.turns, Turn(role="assistant", content=shot.demonstration))


def _choices_with_shots(choices: Choices | None, shots: Sequence[Question]) -> Choices | None:
    if choices is None:
        return None
    before = "".join(f"{_as_text(shot)}\n\n" for shot in shots)
    options = tuple(replace(option, context=before + option.context) for option in choices.options)
    return replace(choices, options=options)


def _as_text(shot: Question) -> str:
    """An example with its right option, laid out as the question is."""
    if shot.choices is None:
        raise ValueError("an example has no options; read it with the task of the question")
    right = shot.choices.options[shot.choices.gold]
    return right.context + right.continuation
