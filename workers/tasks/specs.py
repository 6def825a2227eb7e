"""What a user says about how answers are scored: a benchmark by name, or a scorer of their own.

Torch-free, as all of `workers.tasks`.
"""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from workers.specs import Spec
from workers.tasks.numbers import TOLERANCE
from workers.tasks.option_words import spelling_of
from workers.tasks.patterns import MAX_PATTERN_CHARS, check_pattern


class TaskName(StrEnum):
    """The benchmarks; docs/evaluation.md describes each."""

    GSM8K = "gsm8k"
    MAWPS = "mawps"
    SVAMP = "svamp"
    ADDSUB = "addsub"
    MULTIARITH = "multiarith"
    SINGLEEQ = "singleeq"
    AQUA = "aqua"
    BOOLQ = "boolq"
    PIQA = "piqa"
    SIQA = "siqa"
    HELLASWAG = "hellaswag"
    WINOGRANDE = "winogrande"
    ARC_E = "arc_e"
    ARC_C = "arc_c"
    OBQA = "obqa"


def _distinct_letters(letters: str) -> str:
    if len(set(letters)) != len(letters):
        raise ValueError(f"{letters!r} names a letter twice; name each once")
    return letters


def _distinct_options(options: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(map(spelling_of, options))) != len(options):
        raise ValueError("two options differ in case or white space alone; name each once")
    return options


class NumberScorerSpec(Spec):
    """The last number of the answer is the gold number."""

    kind: Literal["number"] = "number"
    """Which scorer this is."""

    tolerance: float = Field(TOLERANCE, ge=0)
    """Largest difference that still counts as right."""


class LetterScorerSpec(Spec):
    """The letter that the answer chooses is the gold letter."""

    kind: Literal["letter"] = "letter"
    """Which scorer this is."""

    letters: Annotated[
        str, StringConstraints(pattern=r"^[A-Z]{2,26}$"), AfterValidator(_distinct_letters)
    ] = "ABCDE"
    """The capitals that stand for options, in their order."""


class OptionScorerSpec(Spec):
    """The option's word that the answer chooses is the gold word; case does not matter."""

    kind: Literal["option"] = "option"
    """Which scorer this is."""

    options: Annotated[
        tuple[
            Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)],
            ...,
        ],
        Field(min_length=2, max_length=100),
        AfterValidator(_distinct_options),
    ]
    """The words that stand for options, in their order."""


class ExactScorerSpec(Spec):
    """The answer is the gold text; white space at its ends and its amount never count."""

    kind: Literal["exact"] = "exact"
    """Which scorer this is."""

    ignore_case: bool = False
    """Whether A is a."""

    ignore_punctuation: bool = False
    """Whether punctuation is left out."""

    ignore_articles: bool = False
    """Whether a, an and the are left out; all three together are SQuAD's exact match."""


class RegexScorerSpec(Spec):
    """What a pattern finds first in the answer is the gold text."""

    kind: Literal["regex"] = "regex"
    """Which scorer this is."""

    pattern: Annotated[
        str,
        StringConstraints(min_length=1, max_length=MAX_PATTERN_CHARS),
        AfterValidator(check_pattern),
    ]
    """A regular expression in RE2's syntax (no lookaround, no back references); the group
    `(?P<answer>…)` is what is read, or the whole match where there is no such group."""

    ignore_case: bool = False
    """Whether A is a, in the pattern and in the comparison."""


class F1ScorerSpec(Spec):
    """How many words answer and gold text share, as SQuAD counts: a score from 0 to 1."""

    kind: Literal["f1"] = "f1"
    """Which scorer this is."""


ScorerSpec = Annotated[
    NumberScorerSpec
    | LetterScorerSpec
    | OptionScorerSpec
    | ExactScorerSpec
    | RegexScorerSpec
    | F1ScorerSpec,
    Field(discriminator="kind"),
]
"""How the answers to a user's own rows are scored."""
