"""The scorers beside those of lm-evaluation-harness: the same but for the differences listed.

`make test-harness` runs this with the harness, which is kept out of the environment. Each
difference stands in docs/evaluation.md, too.
"""

import gzip
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from workers.tasks.likelihood import score_choices
from workers.tasks.numbers import extract_number
from workers.tasks.registry import task_named
from workers.tasks.task import Choices, Option
from workers.tasks.text_scorers import ExactScorer, F1Scorer

lm_eval = pytest.importorskip("lm_eval", reason="make test-harness runs this with lm_eval")
from lm_eval import utils as harness  # noqa: E402
from lm_eval.api.metrics import exact_match_hf_evaluate  # noqa: E402
from lm_eval.api.task import ConfigurableTask  # noqa: E402
from lm_eval.filters import build_filter_ensemble  # noqa: E402
from lm_eval.filters.extraction import RegexFilter  # noqa: E402
from lm_eval.tasks.hellaswag.utils import preprocess  # noqa: E402
from lm_eval.tasks.mlqa.utils import exact_match_score, f1_score  # noqa: E402
from lm_eval.tasks.winogrande import preprocess_winogrande as winogrande  # noqa: E402

TASKS = Path(lm_eval.__file__).parent / "tasks"
RATIONALES = (
    Path(__file__).parents[4].parent / "shared" / "data" / "arithmetic" / "train" / "gsm8k.jsonl.gz"
)
PAGE = (Path(__file__).parents[4] / "docs/evaluation.md").read_text(encoding="utf-8")


class Loader(yaml.SafeLoader):
    """Reads the harness's configurations, whose functions do not matter here."""


Loader.add_constructor("!function", lambda _loader, node: node.value)


def config_of(path: str) -> dict[str, Any]:
    return yaml.load((TASKS / path).read_text(encoding="utf-8"), Loader)  # noqa: S506 (safe)


def harness_score(
    config: dict[str, Any], filter_name: str, answer: str, gold: str, doc: dict[str, Any]
) -> float:
    """What one of the harness's filters and its exact match make of an answer."""
    (chosen,) = (each for each in config["filter_list"] if each["name"] == filter_name)
    steps = [
        (step["function"], {key: value for key, value in step.items() if key != "function"})
        for step in chosen["filter"]
    ]
    instance = SimpleNamespace(resps=[answer], doc=doc, filtered_resps={})
    build_filter_ensemble(filter_name, steps).apply([instance])
    (metric,) = config["metric_list"]
    options = {key: metric[key] for key in metric.keys() - {"metric", "aggregation"}}
    options.pop("higher_is_better")
    (read,) = instance.filtered_resps.values()
    return float(
        exact_match_hf_evaluate(predictions=[read], references=[gold], **options)["exact_match"]
    )


@dataclass(frozen=True)
class Difference:
    """An answer that the two score differently, and what docs/evaluation.md calls it."""

    answer: str
    gold: str
    ours: float
    theirs: float
    words: str


SAME_NUMBER = [
    ("Natalia sold 48/2 = 24 clips in May, so 48 + 24 = 72.\n#### 72", "72"),
    ("7 + 9 = 16", "16"),
    ("The answer is 72.", "72"),
    ("The answer is 1,234 dollars.", "1234"),
    ("The answer is $1,234.", "1234"),
    ("She earned $10.50", "10.50"),
    ("**Answer:** 18 eggs", "18"),
    ("\\boxed{72}", "72"),
    ("x = -5", "-5"),
    ("12 - 5 = 7", "7"),
    ("12 - 5 = 7", "12"),
    ("I do not know.", "7"),
    ("The answer is 71.", "72"),
    ("#### 2\nThe answer is: 2", "12"),
    ("So, the total cost of the lunch bill is $6.88.", "5.88"),
    ("In total, Wendy sold 1221 - 364 = 12 cupcakes and 364 cookies.", "40"),
    ("So, the answer is 1:1.", "1"),
]

OTHER_NUMBER = [
    Difference("The answer is 72.0", "72", 1, 0, "compares texts"),
    Difference("She earned $10.50", "10.5", 1, 0, "compares texts"),
    Difference("The answer is 0.6667", "0.666667", 1, 0, "compares texts"),
    Difference("The answer is 3/4.", "0.75", 1, 0, "fractions"),
    Difference("\\boxed{\\frac{3}{4}}", "0.75", 1, 0, "fractions"),
    Difference("1 1/2 hours", "1.5", 1, 0, "fractions"),
    Difference("1 1/2 hours", "2", 0, 1, "fractions"),
    Difference("between 12-5", "5", 1, 0, "minus"),
    Difference("x = − 5", "-5", 1, 0, "minus"),
    Difference("It costs $5, I think...", "5", 1, 0, "a run of dots or commas"),
    Difference("an area of 36 m^2", "36", 1, 0, "exponent"),
    Difference("\\boxed{40}, 10 more than the 30 of before.", "40", 1, 0, "box"),
]

STRICT_ONLY = [
    Difference("The answer is 72.", "72", 1, 0, "`strict-match`"),
    Difference("#### 72\nQuestion: 2 + 2?\n#### 4", "72", 0, 1, "`strict-match`"),
]


def gsm8k_score(filter_name: str, answer: str, gold: str) -> float:
    return harness_score(config_of("gsm8k/gsm8k.yaml"), filter_name, answer, f"#### {gold}", {})


def number_score(answer: str, gold: str) -> float:
    return task_named("gsm8k").scorer.score(answer, gold)


@pytest.mark.parametrize(("answer", "gold"), SAME_NUMBER)
def test_numbers_score_as_by_the_harness(answer: str, gold: str) -> None:
    assert number_score(answer, gold) == gsm8k_score("flexible-extract", answer, gold)
    if answer.endswith("#### 72"):
        assert number_score(answer, gold) == gsm8k_score("strict-match", answer, gold)


@pytest.mark.parametrize(
    ("filter_name", "found"),
    [("flexible-extract", each) for each in OTHER_NUMBER]
    + [("strict-match", each) for each in STRICT_ONLY],
)
def test_numbers_differ_from_the_harness_only_where_the_page_says_so(
    filter_name: str, found: Difference
) -> None:
    assert number_score(found.answer, found.gold) == found.ours
    assert gsm8k_score(filter_name, found.answer, found.gold) == found.theirs
    assert found.words in PAGE


@pytest.mark.skipif(
    not RATIONALES.is_file(), reason="the reasoning data sets are not stored beside the project"
)
def test_numbers_of_real_rationales_differ_in_two_fractions() -> None:
    with gzip.open(RATIONALES, "rt") as file:
        rationales = [json.loads(line)["output"].rpartition("\nThe answer is")[0] for line in file]
    config = config_of("gsm8k/gsm8k.yaml")
    (flexible,) = (each for each in config["filter_list"] if each["name"] == "flexible-extract")
    pattern, *_ = (step["regex_pattern"] for step in flexible["filter"] if "regex_pattern" in step)
    theirs = RegexFilter(pattern, group_select=-1).apply([rationales], [{}])[0]

    different = [
        text
        for text, read in zip(rationales, theirs, strict=True)
        if extract_number(text) != extract_number(read)
    ]

    assert len(rationales) == 7473
    assert len(different) == 2
    assert all(re.search(r"\d/\d[^\d]*$", text) for text in different)


OPTIONS = ["23", "27", "26", "28", "29"]

SAME_LETTER = [
    ("The answer is (D).", "D"),
    ("The answer is (D).", "A"),
    ("(B)", "B"),
    ("We get 5 * 5 = 25, which is (C).", "C"),
    ("A: The correct answer is (B).\n\nThe correct answer is (C) 25.", "C"),
    ("\\boxed{(D)}", "D"),
    ("Answer: C", "C"),
    ("I do not know.", "A"),
]

OTHER_LETTER = [
    Difference("B", "B", 1, 0, "without brackets"),
    Difference("C is correct.", "C", 1, 0, "without brackets"),
    Difference("$\\boxed{B}$", "B", 1, 0, "without brackets"),
    Difference("The answer is 27.", "B", 0, 1, "the option's text"),
    Difference("The answer is (A).\n\nThe others are (B), (C), (D), (E).", "A", 1, 0, "states"),
    Difference("(A) 23 (B) 27 (C) 26 (D) 28 (E) 29", "E", 0, 1, "list of all options"),
]


def gpqa_score(answer: str, gold: str) -> float:
    config = config_of("gpqa/generative/_gpqa_generative_n_shot_yaml")
    return harness_score(config, "flexible-extract", answer, f"({gold})", {"choices": OPTIONS})


@pytest.mark.parametrize(("answer", "gold"), SAME_LETTER)
def test_letters_score_as_by_the_harness(answer: str, gold: str) -> None:
    assert task_named("aqua").scorer.score(answer, gold) == gpqa_score(answer, gold)


@pytest.mark.parametrize("found", OTHER_LETTER)
def test_letters_differ_from_the_harness_only_where_the_page_says_so(found: Difference) -> None:
    assert task_named("aqua").scorer.score(found.answer, found.gold) == found.ours
    assert gpqa_score(found.answer, found.gold) == found.theirs
    assert found.words in PAGE


answers = st.lists(st.sampled_from("the a an Paris, paris (Tower) tower's Île 1,000.".split()))


@given(answers.map(" ".join), answers.map(" ".join))
def test_words_count_as_in_the_harness(answer: str, gold: str) -> None:
    exact = ExactScorer(ignore_case=True, ignore_punctuation=True, ignore_articles=True)
    assert exact.score(answer, gold) == exact_match_score(answer, gold, "en")
    if F1Scorer().extract(answer) or F1Scorer().extract(gold):
        assert F1Scorer().score(answer, gold) == pytest.approx(f1_score(answer, gold, "en"))


def test_words_differ_from_the_harness_where_there_are_none() -> None:
    assert (F1Scorer().score("", "the"), f1_score("", "the", "en")) == (1, 0)
    assert "no words" in PAGE


texts = st.lists(st.text(min_size=1, max_size=20), min_size=2, max_size=5)
questions = texts.flatmap(
    lambda options: st.tuples(
        st.just(options),
        st.integers(0, len(options) - 1),
        st.lists(
            st.floats(-1e4, 0) | st.just(-math.inf),
            min_size=len(options),
            max_size=len(options),
        ),
    )
)


@given(questions)
def test_log_likelihoods_choose_as_in_the_harness(
    question: tuple[list[str], int, list[float]],
) -> None:
    options, gold, log_likelihoods = question
    choices = Choices(tuple(Option("", f" {text}", text) for text in options), gold)
    task = SimpleNamespace(
        OUTPUT_TYPE="multiple_choice",
        config=SimpleNamespace(process_results=None),
        _metric_fn_list={"acc": None, "acc_norm": None},
        doc_to_choice=lambda _doc: options,
        doc_to_target=lambda _doc: gold,
        multiple_input=False,
        multiple_target=False,
    )
    results = [(each, False) for each in log_likelihoods]
    with_infinities = all(map(math.isinf, log_likelihoods))  # its softmax is then undefined
    if not with_infinities:
        theirs = ConfigurableTask.process_results(task, {}, results)
        assert score_choices(choices, log_likelihoods) == theirs


def prompt_of(head: str, question: str, label: str, options: list[str]) -> str:
    listed = " ".join(f"{label}{n}: {text}" for n, text in enumerate(options, start=1))
    words = "/".join(f"{label.lower()}{n}" for n in range(1, len(options) + 1))
    return f"{head}: {question}\n\n{listed}\n\nAnswer format: {words}"


def ours(task: str, prompt: str, gold: str) -> list[tuple[str, str]]:
    choices = task_named(task).question({"instruction": prompt, "answer": gold}).choices
    assert choices is not None
    return [(each.context, each.continuation) for each in choices.options]


@pytest.mark.parametrize(
    ("task", "path", "label", "doc"),
    [
        ("piqa", "piqa/piqa.yaml", "Solution", {"goal": "How to cool down?"}),
        ("siqa", "siqa/siqa.yaml", "Answer", {"context": "Kim fell.", "question": "Why?"}),
        ("arc_e", "arc/arc_easy.yaml", "Answer", {"question": "What melts?"}),
        ("arc_c", "arc/arc_easy.yaml", "Answer", {"question": "What melts?"}),
        ("obqa", "openbookqa/openbookqa.yaml", "Answer", {"question_stem": "Ice may"}),
    ],
)
def test_options_are_laid_out_as_in_the_harness(
    task: str, path: str, label: str, doc: dict[str, str]
) -> None:
    config = config_of(path)
    template = config["doc_to_text"]
    context = harness.apply_template(template, doc) if "{{" in template else doc[template]
    options = ["take ice", "use a fan", "wait"][: 2 if task == "piqa" else 3]
    prompt = prompt_of("Please choose", " ".join(doc.values()), label, options)

    laid_out = ours(task, prompt, f"{label.lower()}1")

    delimiter = config.get("target_delimiter", " ")
    assert laid_out == [(context, delimiter + option) for option in options]
    metrics = {metric["metric"] for metric in config["metric_list"]}
    assert set(task_named(task).likelihood_metrics) == metrics


def test_hellaswag_is_laid_out_as_in_the_harness_but_for_one_capital() -> None:
    start, end = "Roofs: [header] How to tile [title] Measure. [step] Then climb.", "he"
    options = ["[substeps] Falls. [title] Get up.", "tiles it.", "sings.", "sleeps."]
    prompt = prompt_of("Please choose", f"{start} {end}", "Ending", options)

    laid_out = ours("hellaswag", prompt, "ending1")

    theirs = preprocess(f"{start} {end.capitalize()}")
    assert {context for context, _ in laid_out} == {theirs.removesuffix("He") + "he"}
    assert [continuation for _, continuation in laid_out] == [
        f" {preprocess(option)}" for option in options
    ]
    assert "capital" in PAGE


def test_winogrande_is_laid_out_as_in_the_harness() -> None:
    doc = {"sentence": "Sam helped Kim, so _ was glad.", "option1": "Sam", "option2": "Kim"}
    prompt = prompt_of("Please choose", doc["sentence"], "Option", ["Sam", "Kim"])

    theirs = [(each, f" {winogrande.doc_to_target(doc)}") for each in winogrande.doc_to_choice(doc)]
    assert ours("winogrande", prompt, "option1") == theirs


def test_boolq_is_laid_out_as_in_the_harness_but_for_the_passage() -> None:
    config = config_of("super_glue/boolq/default.yaml")
    doc = {"passage": "", "question": "is ice cold"}
    prompt = "Please answer with true or false, question: is ice cold?\n\nAnswer format: true/false"

    laid_out = ours("boolq", prompt, "true")

    assert {f"\n{context}" for context, _ in laid_out} == {
        harness.apply_template(config["doc_to_text"], doc)
    }
    assert {each for _, each in laid_out} == {f" {word}" for word in config["doc_to_choice"]}
    assert "passage" in PAGE
