"""One-step word problems with equations, derived from ASDiv's answers.

ASDiv gives a problem and its answer. Where exactly one `a op b` over the numbers of the text gives
that answer, the equation is what a pupil would write, and it becomes the target. Other problems
(several steps, other relations, ambiguous ones) are left out.

Source: Miao, Liang and Su 2020, "A Diverse Corpus for Evaluating and Developing English Math Word
Problem Solvers", ACL 2020; CC BY-NC 4.0.
"""

import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations
from pathlib import Path

_INSTRUCTION = "Solve the problem with one equation over its numbers."
_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_WORDS = {word: value for value, word in enumerate(_SMALL)}
_WORDS |= {word: 10 * (index + 2) for index, word in enumerate(_TENS)}
_WORDS |= {f"{ten}-{one}": _WORDS[ten] + _WORDS[one] for ten in _TENS for one in _SMALL[1:10]}
_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?|[a-z]+(?:-[a-z]+)?")


@dataclass(frozen=True)
class WordProblem:
    """A problem with the one equation that answers it."""

    text: str
    equation: str
    answer: float

    def as_row(self) -> dict[str, str]:
        """The problem as a row of instruction data."""
        return {"instruction": _INSTRUCTION, "input": self.text, "output": self.equation}


def read_problems(path: Path) -> list[WordProblem]:
    """Read ASDiv's JSON lines (passage, question, answer) and keep what one equation answers."""
    problems = []
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        text = f"{row['passage'].strip()} {row['question'].strip()}"
        equation = derive_equation(text, row["answer"])
        if equation is not None:
            problems.append(WordProblem(text, equation, float(equation.split(" = ")[1])))
    return problems


def split_problems(
    problems: list[WordProblem], num_held_out: int, seed: int = 0
) -> tuple[list[WordProblem], list[WordProblem]]:
    """Shuffle by a fixed seed and hold out problems whose text is in no training problem."""
    unique = list({problem.text.lower(): problem for problem in problems}.values())
    random.Random(seed).shuffle(unique)  # noqa: S311  # nosec B311 # a data split, no secret
    return unique[num_held_out:], unique[:num_held_out]


def derive_equation(text: str, answer: str) -> str | None:
    """The only `a op b = answer` over two numbers of the text, or None."""
    stated = re.match(r"-?\d[\d,]*(?:\.\d+)?", answer.strip())
    if stated is None:
        return None
    target = Fraction(stated.group().replace(",", ""))
    equations = {
        equation
        for first, second in combinations(_numbers_of(text), 2)
        for equation, value in _results(first, second)
        if value == target
    }
    return equations.pop() if len(equations) == 1 else None


def _numbers_of(text: str) -> list[Fraction]:
    found = []
    for token in _NUMBER.findall(text.lower()):
        if token[0].isdigit():
            found.append(Fraction(token.replace(",", "")))
        elif token in _WORDS:
            found.append(Fraction(_WORDS[token]))
    return found


def _results(first: Fraction, second: Fraction) -> Iterator[tuple[str, Fraction]]:
    """Every equation over two numbers; differences and quotients larger by smaller only."""
    large, small = max(first, second), min(first, second)
    values = [("+", first, second, first + second), ("×", first, second, first * second)]
    values.append(("-", large, small, large - small))
    if small:
        values.append(("÷", large, small, large / small))
    for operator, left, right, value in values:
        yield f"{_plain(left)} {operator} {_plain(right)} = {_plain(value)}", value


def _plain(value: Fraction) -> str:
    return str(value.numerator) if value.denominator == 1 else f"{float(value):g}"
