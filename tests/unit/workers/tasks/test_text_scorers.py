import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.tasks.text_scorers import ExactScorer, F1Scorer, RegexScorer

SQUAD_EXACT = ExactScorer(ignore_case=True, ignore_punctuation=True, ignore_articles=True)


@pytest.mark.parametrize(
    ("scorer", "answer", "gold", "score"),
    [
        (ExactScorer(), "Paris", "Paris", 1),
        (ExactScorer(), " Paris\n", "Paris", 1),
        (ExactScorer(), "New   York", "New York", 1),
        (ExactScorer(), "paris", "Paris", 0),
        (ExactScorer(), "Paris.", "Paris", 0),
        (ExactScorer(), "The answer is Paris", "Paris", 0),
        (ExactScorer(ignore_case=True), "PARIS", "Paris", 1),
        (ExactScorer(ignore_punctuation=True), "Paris.", "Paris", 1),
        (ExactScorer(ignore_punctuation=True), "«Paris»", "Paris", 1),
        (ExactScorer(ignore_articles=True), "the Louvre", "Louvre", 1),
        (SQUAD_EXACT, "The Louvre!", "louvre", 1),
        (SQUAD_EXACT, "theatre", "atre", 0),
        (SQUAD_EXACT, "", "the", 1),
    ],
)
def test_exact_means_the_same_text_but_for_what_is_ignored(
    scorer: ExactScorer, answer: str, gold: str, score: float
) -> None:
    assert scorer.score(answer, gold) == score


@pytest.mark.parametrize(
    ("answer", "gold", "score"),
    [
        ("Paris", "Paris", 1),
        ("The Eiffel Tower.", "eiffel tower", 1),
        ("the tower of Paris", "Eiffel tower", 2 / 5),
        ("London", "Paris", 0),
        ("a b c c", "c c d", 4 / 6),
        ("", "Paris", 0),
        ("the", "a", 1),
        ("It is 1,234.50 dollars", "1,234.50", 2 / 5),
    ],
)
def test_f1_counts_shared_words(answer: str, gold: str, score: float) -> None:
    assert F1Scorer().score(answer, gold) == pytest.approx(score)


@given(st.text(), st.text())
def test_f1_is_symmetric_and_whole_for_equal_texts(one: str, other: str) -> None:
    scorer = F1Scorer()
    assert scorer.score(one, one) == 1
    assert scorer.score(one, other) == scorer.score(other, one)
    assert 0 <= scorer.score(one, other) <= 1


@pytest.mark.parametrize(
    ("scorer", "answer", "found"),
    [
        (RegexScorer(r"answer is (?P<answer>\d+)"), "The answer is 12.", "12"),
        (RegexScorer(r"answer is (?P<answer>\d+)"), "The answer is twelve.", None),
        (RegexScorer(r"\d+"), "12 and 13", "12"),
        (RegexScorer(r"(?s).*answer is (?P<answer>\d+)"), "answer is 1\nanswer is 2", "2"),
        (RegexScorer(r"<answer>(?P<answer>.*?)</answer>"), "<answer> Paris </answer>", "Paris"),
        (RegexScorer(r"yes|no", ignore_case=True), "No, never", "No"),
        (RegexScorer(r"yes|no"), "No, never", None),
        (RegexScorer(r"größer|kleiner"), "5 ist größer", "größer"),
    ],
)
def test_a_pattern_reads_what_it_finds_first(
    scorer: RegexScorer, answer: str, found: str | None
) -> None:
    assert scorer.extract(answer) == found


def test_what_a_pattern_finds_is_compared_with_the_gold() -> None:
    assert RegexScorer(r"\w+$").score("it is Paris", "Paris") == 1
    assert RegexScorer(r"\w+$").score("it is paris", "Paris") == 0
    assert RegexScorer(r"\w+$", ignore_case=True).score("it is paris", "Paris") == 1
    assert RegexScorer(r"\d+").score("none", "5") == 0


def test_a_pattern_that_backtracks_for_ever_elsewhere_is_done_in_one_pass() -> None:
    assert RegexScorer(r"(?:a+)+$").extract("a" * 100_000 + "b") is None
