"""The eight commonsense benchmarks: BoolQ, PIQA, SIQA, HellaSwag, WinoGrande, ARC, OpenBookQA.

Rows have the form of LLM-Adapters (Hu et al. 2023, arXiv:2304.01933): one instruction that holds
the question, the labelled options and the words to answer with. The answer is one of those words.
For log-likelihoods the options are taken out of the instruction and laid out as
lm-evaluation-harness does; docs/evaluation.md lists where the two cannot be the same.
"""

import re
from collections.abc import Callable

from workers.tasks.option_words import OptionScorer
from workers.tasks.task import Choices, LikelihoodMetric, Option, Task

_FORMAT = re.compile(r"\s+Answer format:\s*(\S+)\s*$")
_TAG = re.compile(r"\[.*?\]")
_YES_OR_NO = {"true": "yes", "false": "no"}

_Layout = Callable[[str, list[str]], tuple[Option, ...]]
"""From the question and the options' texts to what is scored."""


def split_options(prompt: str, label: str) -> tuple[str, list[str]]:
    """Take the question and the texts of its options out of an instruction.

    Args:
        prompt: "…: QUESTION  Label1: TEXT Label2: TEXT  Answer format: label1/label2".
        label: What precedes the options' numbers, such as "Answer".

    Raises:
        ValueError: If there are other options than the answer format lists, or one is empty.
    """
    body, words = _without_format(prompt)
    question, *parts = re.split(rf"(?:^|\s){label}(\d+):(?=\s|$)", body)
    numbers, texts = parts[::2], [text.strip() for text in parts[1::2]]
    labels = [f"{label.lower()}{number}" for number in numbers]
    if labels != words or labels != [f"{label.lower()}{n + 1}" for n in range(len(labels))]:
        raise ValueError(
            f"has the options {', '.join(labels) or 'none'}, and its answer format lists "
            f"{', '.join(words)}; write each as {label}1: TEXT"
        )
    if "" in texts:
        raise ValueError(f"has no text after {label}{texts.index('') + 1}:; give each option one")
    return _question(question), texts


def _without_format(prompt: str) -> tuple[str, list[str]]:
    ending = _FORMAT.search(prompt)
    if ending is None:
        raise ValueError('does not end in "Answer format: …/…"; add the words to answer with')
    return prompt[: ending.start()], ending[1].split("/")


def _question(text: str) -> str:
    """What follows the instruction's first clause, "Please choose …:"."""
    _, colon, question = text.partition(":")
    if not colon or not question.strip():
        raise ValueError('has no question; write "Please …: QUESTION"')
    return question.strip()


def _parser(label: str, layout: _Layout) -> Callable[[str, str], Choices]:
    def parse(prompt: str, gold: str) -> Choices:
        question, texts = split_options(prompt, label)
        words = [f"{label.lower()}{number + 1}" for number in range(len(texts))]
        return Choices(layout(question, texts), _index(gold, words))

    return parse


def _index(gold: str, words: list[str]) -> int:
    if gold.lower() not in words:
        raise ValueError(
            f"offers {', '.join(words)}, and the answer is {gold}; correct one of them"
        )
    return words.index(gold.lower())


def _after(frame: str) -> _Layout:
    """Each option follows the question, which stands in a frame."""

    def lay_out(question: str, texts: list[str]) -> tuple[Option, ...]:
        context = frame.format(question)
        return tuple(Option(context, f" {text}", text) for text in texts)

    return lay_out


def _endings(question: str, texts: list[str]) -> tuple[Option, ...]:
    """HellaSwag: the tags that WikiHow's texts left are no words to predict.

    Doubled stops and blanks that this leaves stay, as in lm-evaluation-harness: they count.
    """
    return _after("{}")(_without_tags(question), [_without_tags(text) for text in texts])


def _without_tags(text: str) -> str:
    return _TAG.sub("", text.strip().replace(" [title]", ". ")).replace("  ", " ")


def _in_the_blank(sentence: str, texts: list[str]) -> tuple[Option, ...]:
    """WinoGrande: what follows the blank is scored, each option standing in the blank."""
    before, blank, rest = sentence.partition("_")
    if not blank:
        raise ValueError("has no blank; write _ where the option belongs")
    return tuple(Option(before + text, f" {rest.strip()}", before + text) for text in texts)


def _parse_boolq(prompt: str, gold: str) -> Choices:
    body, words = _without_format(prompt)
    if words != list(_YES_OR_NO):
        raise ValueError(f"has the answer format {'/'.join(words)}; write true/false")
    options = _after("Question: {}\nAnswer:")(_question(body), list(_YES_OR_NO.values()))
    return Choices(options, _index(gold, words))


def _numbered(
    name: str, label: str, num_options: int, layout: _Layout, *metrics: LikelihoodMetric
) -> Task:
    words = tuple(f"{label.lower()}{number + 1}" for number in range(num_options))
    return Task(name, OptionScorer(words), _parser(label, layout), metrics)


_QUESTION = _after("Question: {}\nAnswer:")

COMMONSENSE_TASKS = (
    Task(
        "boolq",
        OptionScorer(
            tuple(_YES_OR_NO), tuple((synonym, word) for word, synonym in _YES_OR_NO.items())
        ),
        _parse_boolq,
        ("acc",),
    ),
    _numbered("piqa", "Solution", 2, _QUESTION, "acc", "acc_norm"),
    _numbered("siqa", "Answer", 3, _after("Q: {}\nA:"), "acc"),
    _numbered("hellaswag", "Ending", 4, _endings, "acc", "acc_norm"),
    _numbered("winogrande", "Option", 2, _in_the_blank, "acc"),
    _numbered("arc_e", "Answer", 5, _QUESTION, "acc", "acc_norm"),
    _numbered("arc_c", "Answer", 5, _QUESTION, "acc", "acc_norm"),
    _numbered("obqa", "Answer", 4, _after("{}"), "acc", "acc_norm"),
)
"""ARC's questions have three to five options."""
