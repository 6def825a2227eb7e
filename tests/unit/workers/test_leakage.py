import gzip
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.leakage import (
    MAX_EXAMPLE_CHARS,
    MIN_QUESTIONS_WITH_PROMPT,
    NEAR_THRESHOLD,
    NUM_EXAMPLES,
    Overlap,
    find_duplicates,
    find_overlaps,
    normalize,
)

DATA = Path(__file__).parents[3].parent / "shared" / "data"
ARITHMETIC_TESTS = "multiarith addsub singleeq mawps gsm8k aqua svamp".split()
needs_data = pytest.mark.skipif(
    not DATA.is_dir(), reason="the reasoning data sets are not stored beside the project"
)

WAITER = (
    "At lunch a waiter had 10 customers and 5 of them did n't leave a tip . If he got $ 3 each "
    "from the ones who did tip , how much money did he earn ?"
)
WAITER_RESPACED = (
    "At lunch a waiter had 10 customers and 5 of them didn't leave a tip. If he got $3 each "
    "from the ones who did tip, how much money did he earn?"
)
WAITER_OTHER_NUMBERS = WAITER.replace("10", "7").replace("5", "4")

some_text = st.text(min_size=1)
# Few words make many pairs that are alike; too few questions to have a common prompt.
questions = st.lists(
    st.lists(st.sampled_from("abc"), max_size=9).map(" ".join),
    max_size=MIN_QUESTIONS_WITH_PROMPT - 1,
)


def overlap_of(train: Sequence[str], evaluation: Sequence[str]) -> Overlap:
    return find_overlaps(train, {"set": evaluation}).overlaps["set"]


def trigrams_of(text: str) -> set[tuple[str, ...]]:
    words = tuple(normalize(text).split())
    return {words[start : start + 3] for start in range(len(words) - 2)} or {words}


def similarity_of(one: str, other: str) -> float:
    shared = trigrams_of(one) & trigrams_of(other)
    return len(shared) / len(trigrams_of(one) | trigrams_of(other))


@given(some_text)
def test_a_row_always_overlaps_itself_exactly(text: str) -> None:
    found = find_overlaps([text], {"set": [text]})
    assert found.train_rows == {0}
    assert found.overlaps["set"].num_train_exact == found.overlaps["set"].num_evaluation_exact == 1
    assert found.overlaps["set"].num_train_near == found.overlaps["set"].num_evaluation_near == 0


@given(some_text, some_text)
def test_exact_rows_have_the_same_words(one: str, other: str) -> None:
    is_exact = overlap_of([one], [other]).num_train_exact == 1
    assert is_exact == (normalize(one) == normalize(other))


@given(
    st.lists(st.from_regex("[a-z0-9]{1,5}", fullmatch=True), min_size=1),
    st.sampled_from([" ", "  ", " , ", "; ", "\n\n", "? ", " ' ", " $ "]),
)
def test_case_spacing_and_punctuation_do_not_matter(words: list[str], between: str) -> None:
    plain = " ".join(words)
    assert normalize(between.join(words).upper()) == normalize(plain) == plain


@given(some_text)
def test_normalizing_twice_changes_nothing(text: str) -> None:
    ascii_text = text.encode("ascii", "ignore").decode()
    assert normalize(normalize(ascii_text)) == normalize(ascii_text)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is 3 + 4?", "What is 3 - 4?"),
        ("What is 3 * 4?", "What is 3 / 4?"),
        ("What is -3 plus 4?", "What is 3 plus 4?"),
        ("It costs 3.5 dollars.", "It costs 35 dollars."),
        ("Add 1.5.", "Add 1, 5."),
        ("Is x < y?", "Is x > y?"),
        ("二加三", "二加四"),
        ("🙂", "🙁"),
    ],
)
def test_other_numbers_and_signs_are_never_an_exact_match(one: str, other: str) -> None:
    assert overlap_of([one], [other]).num_train_exact == 0


def test_accents_match_however_they_are_encoded() -> None:
    assert normalize("caf\u00e9") == normalize("cafe\u0301")


@given(questions, questions, st.sampled_from([0.2, 0.5, NEAR_THRESHOLD, 1.0]))
def test_all_pairs_from_the_threshold_up_are_found_and_none_below(
    train: list[str], evaluation: list[str], threshold: float
) -> None:
    found = find_overlaps(train, {"set": evaluation}, threshold)
    alike = [
        (row, evaluation_row)
        for row, question in enumerate(train)
        for evaluation_row, evaluated in enumerate(evaluation)
        if similarity_of(question, evaluated) >= threshold
    ]
    overlap = found.overlaps["set"]
    assert found.train_rows == {row for row, _ in alike}
    assert overlap.num_train_exact + overlap.num_train_near == len(found.train_rows)
    assert overlap.num_evaluation_hit == len({row for _, row in alike})
    for example in overlap.examples:
        assert example.similarity >= threshold
        assert example.similarity == similarity_of(example.train_text, example.evaluation_text)


@given(questions, questions, st.integers(0, 2**32))
def test_the_order_of_the_rows_does_not_matter(
    train: list[str], evaluation: list[str], seed: int
) -> None:
    order = Random(seed).sample(range(len(train)), len(train))
    found = find_overlaps(train, {"set": evaluation})
    shuffled = find_overlaps([train[row] for row in order], {"set": evaluation[::-1]})
    assert {order[row] for row in shuffled.train_rows} == found.train_rows
    assert shuffled.overlaps["set"].model_dump(exclude={"examples"}) == found.overlaps[
        "set"
    ].model_dump(exclude={"examples"})


def test_the_same_problem_respaced_is_near() -> None:
    found = overlap_of([WAITER], [WAITER_RESPACED])
    assert (found.num_train_exact, found.num_train_near) == (0, 1)
    (example,) = found.examples
    assert (example.train_text, example.evaluation_text) == (WAITER, WAITER_RESPACED)
    assert NEAR_THRESHOLD <= example.similarity < 1


def test_other_numbers_in_the_same_template_do_not_count() -> None:
    assert overlap_of([WAITER_OTHER_NUMBERS], [WAITER]).num_evaluation_hit == 0


def test_questions_of_fewer_than_three_words_overlap_only_as_a_whole() -> None:
    found = overlap_of(["2 + 2", "why", "yes no", ""], ["why", "yes", "2 + 3"])
    assert (found.num_train_exact, found.num_train_near) == (1, 0)


def test_rows_hit_are_counted_on_both_sides_and_exact_before_near() -> None:
    found = find_overlaps(
        ["Other words here.", WAITER, WAITER.upper(), WAITER_RESPACED],
        {"both": [WAITER, WAITER_RESPACED], "one": [WAITER_RESPACED], "none": ["What?"]},
    )
    assert found.train_rows == {1, 2, 3}
    counts = {
        name: (
            overlap.num_rows,
            overlap.num_train_exact,
            overlap.num_train_near,
            overlap.num_evaluation_exact,
            overlap.num_evaluation_near,
        )
        for name, overlap in found.overlaps.items()
    }
    assert counts == {"both": (2, 3, 0, 2, 0), "one": (1, 1, 2, 1, 0), "none": (1, 0, 0, 0, 0)}


def test_the_prompt_around_all_questions_is_not_compared() -> None:
    prompt = (
        "Please answer the following question with true or false, and with nothing else: is {} so? "
        "Answer format: true or false."
    )
    evaluation = [prompt.format(f"colour{row}") for row in range(MIN_QUESTIONS_WITH_PROMPT)]
    train = [prompt.format("paint"), prompt.format("colour3")]
    found = find_overlaps(train, {"set": evaluation})
    assert found.train_rows == {1}
    assert similarity_of(train[0], evaluation[0]) >= NEAR_THRESHOLD


def test_few_questions_are_compared_as_a_whole() -> None:
    assert find_overlaps([WAITER_RESPACED], {"set": [WAITER, f"{WAITER} Say."]}).train_rows == {0}


def test_examples_are_few_cut_short_and_in_the_order_of_the_rows() -> None:
    train = [f"{number} {'x' * 2 * MAX_EXAMPLE_CHARS}" for number in range(9)]
    examples = overlap_of(train, train[::-1]).examples
    assert [example.train_row for example in examples] == list(range(NUM_EXAMPLES))
    assert [example.evaluation_row for example in examples] == [8, 7, 6]
    assert {len(example.train_text) for example in examples} == {MAX_EXAMPLE_CHARS}


def test_without_evaluation_sets_nothing_leaks() -> None:
    found = find_overlaps(["a"], {})
    assert (found.overlaps, found.train_rows) == ({}, frozenset())


def test_a_repeated_row_is_counted_once_for_each_repetition() -> None:
    found = find_duplicates(["2 + 2?", "3 + 3?", "2 +  2", "2 + 2!"], ["4", "6", "4.", "4"])
    assert found.num_rows == 2
    assert [(example.row, example.earlier_row) for example in found.examples] == [(2, 0), (3, 0)]
    assert found.examples[0].text == "2 +  2"


def test_the_same_question_with_another_answer_is_no_duplicate() -> None:
    assert find_duplicates(["a b", "a"], ["c", "b c"]).num_rows == 0
    assert find_duplicates(["a", "a"], ["b", "c"]).num_rows == 0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xy"))))
def test_rows_that_repeat_nothing_are_what_is_left(rows: list[tuple[str, str]]) -> None:
    found = find_duplicates([question for question, _ in rows], [answer for _, answer in rows])
    assert found.num_rows == len(rows) - len(set(rows))


def test_what_is_found_does_not_depend_on_the_order_of_hashing() -> None:
    code = (
        "from workers.leakage import find_overlaps\n"
        "rows = [f'{a} b {c} d {e} f' for a in 'xyz' for c in 'xyz' for e in 'xyz']\n"
        "print(find_overlaps(rows, {'set': rows[::2]}, 0.2))"
    )
    answers = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(filter(None, sys.path))},
        ).stdout
        for seed in "12"
    }
    assert len(answers) == 1


def rows_of(name: str) -> list[dict[str, str]]:
    with gzip.open(DATA / f"{name}.jsonl.gz", "rt") as file:
        return [json.loads(line) for line in file]


def questions_of(name: str) -> list[str]:
    return [f"{row['instruction']}\n\n{row['input']}" for row in rows_of(name)]


def arithmetic_tests() -> dict[str, list[str]]:
    return {name: questions_of(f"arithmetic/test/{name}") for name in ARITHMETIC_TESTS}


@needs_data
def test_the_rows_known_to_be_test_questions_are_found_exactly() -> None:
    name = "arithmetic/train/mawps_overlap_DO_NOT_TRAIN"
    known = Counter(found for row in rows_of(name) for found in row["overlaps"])
    found = find_overlaps(questions_of(name), arithmetic_tests())
    counts = {name: overlap.num_train_exact for name, overlap in found.overlaps.items()}
    assert counts == {name: known[name] for name in ARITHMETIC_TESTS}
    assert len(found.train_rows) == 1183


@needs_data
def test_the_table_in_the_data_page_is_what_is_found() -> None:
    page = (Path(__file__).parents[3] / "docs/data.md").read_text()
    rows = questions_of("arithmetic/train/mawps_overlap_DO_NOT_TRAIN")
    for name, found in find_overlaps(rows, arithmetic_tests()).overlaps.items():
        counts = (
            found.num_rows,
            found.num_train_exact,
            found.num_train_near,
            found.num_evaluation_exact,
            found.num_evaluation_near,
        )
        assert f"| {name} | {' | '.join(f'{count:,}' for count in counts)} |" in page


@needs_data
@pytest.mark.parametrize("name", ["gsm8k", "aqua", "mawps_clean", "math_mix_9k"])
def test_no_question_of_the_training_sets_kept_is_exactly_a_test_question(name: str) -> None:
    found = find_overlaps(questions_of(f"arithmetic/train/{name}"), arithmetic_tests())
    assert {overlap.num_train_exact for overlap in found.overlaps.values()} == {0}


@needs_data
def test_training_rows_cleaned_of_exact_matches_still_hold_test_questions_respaced() -> None:
    found = find_overlaps(questions_of("arithmetic/train/mawps_clean"), arithmetic_tests())
    near = {name: overlap.num_evaluation_near for name, overlap in found.overlaps.items()}
    assert near == {
        "multiarith": 46,
        "addsub": 6,
        "singleeq": 13,
        "mawps": 1,
        "gsm8k": 0,
        "aqua": 0,
        "svamp": 0,
    }


@needs_data
@pytest.mark.parametrize(
    ("one", "other", "num_shared"),
    [
        ("addsub", "singleeq", 111),
        ("mawps", "multiarith", 49),
        ("mawps", "addsub", 58),
        ("singleeq", "mawps", 62),
    ],
)
def test_the_test_sets_share_as_many_questions_as_known(
    one: str, other: str, num_shared: int
) -> None:
    found = overlap_of(
        questions_of(f"arithmetic/test/{one}"), questions_of(f"arithmetic/test/{other}")
    )
    assert found.num_train_exact == num_shared


@needs_data
@pytest.mark.parametrize(("name", "num_shared"), [("boolq", 1), ("piqa", 3), ("arc_e", 2)])
def test_commonsense_training_sets_hold_as_many_test_questions_as_known(
    name: str, num_shared: int
) -> None:
    found = overlap_of(
        questions_of(f"commonsense/train/{name}"), questions_of(f"commonsense/test/{name}")
    )
    assert found.num_train_exact == num_shared
