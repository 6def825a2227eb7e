"""The arithmetic benchmarks: word problems with a number for an answer, and AQuA's letters.

AQuA's rows hold their options as "Answer Choices: (A) … (B) … (C) … (D) … (E) …". For
log-likelihoods they are laid out as in AGIEval (Zhong et al. 2023, arXiv:2304.06364), the form in
which lm-evaluation-harness has AQuA.
"""

import re

from workers.tasks.letters import LetterScorer
from workers.tasks.numbers import NumberScorer
from workers.tasks.task import Choices, Option, Task

_CHOICES = re.compile(
    r"\sAnswer Choices: \(A\) (.+?) \(B\) (.+?) \(C\) (.+?) \(D\) (.+?) \(E\) (.+)$", re.DOTALL
)
_LETTERS = "ABCDE"
_NUMBER_TASKS = ("gsm8k", "mawps", "svamp", "addsub", "multiarith", "singleeq")


def parse_aqua(prompt: str, gold: str) -> Choices:
    """The options of an AQuA problem in log-likelihood form.

    Raises:
        ValueError: If the prompt does not end in five options.
    """
    found = _CHOICES.search(prompt)
    if found is None:
        raise ValueError('does not end in "Answer Choices: (A) … (B) … (C) … (D) … (E) …"')
    texts = [
        f"({letter}) {text.strip()}" for letter, text in zip(_LETTERS, found.groups(), strict=True)
    ]
    context = f"Q: {prompt.strip()}\nA: Among A through E, the answer is"
    options = tuple(Option(context, f" {text}", text) for text in texts)
    return Choices(options, _LETTERS.index(gold.strip().upper()))


ARITHMETIC_TASKS = (
    *(Task(name, NumberScorer()) for name in _NUMBER_TASKS),
    Task("aqua", LetterScorer(_LETTERS), parse_aqua, ("acc", "acc_norm")),
)
