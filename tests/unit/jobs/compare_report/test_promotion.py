"""When an alias moves: only where the same questions show that the candidate is better."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.compare_report.method_results import DifferentQuestionsError
from jobs.compare_report.promotion import paired_test
from tests.unit.jobs.compare_report.runs import scores

RIGHT_OR_WRONG = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40)


def test_a_candidate_that_is_shown_to_be_better_is_promoted() -> None:
    decision = paired_test(scores([1] * 10 + [0] * 2), scores([0] * 10 + [1] * 2))
    assert decision.is_promoted
    assert (decision.num_better, decision.num_worse, decision.num_rows) == (10, 2, 12)
    assert decision.p_value == pytest.approx(79 / 4096)
    assert "is better than the holder (10 answers better and 2 worse of 12" in decision.reason


def test_a_candidate_that_is_better_by_luck_alone_is_not() -> None:
    decision = paired_test(scores([1] * 6 + [0] * 4), scores([0] * 6 + [1] * 4))
    assert not decision.is_promoted
    assert decision.difference > 0
    assert "is not shown to be better" in decision.reason


@given(RIGHT_OR_WRONG)
def test_at_most_one_of_two_adapters_takes_the_alias_from_the_other(
    pairs: list[tuple[bool, bool]],
) -> None:
    first, second = (scores(side) for side in zip(*pairs, strict=True))
    forth, back = paired_test(first, second), paired_test(second, first)
    assert forth.difference == -back.difference
    assert not (forth.is_promoted and back.is_promoted)
    assert forth.p_value + back.p_value >= 1


@given(RIGHT_OR_WRONG)
def test_the_holder_is_never_replaced_by_its_like(pairs: list[tuple[bool, bool]]) -> None:
    same = scores([first for first, _ in pairs])
    decision = paired_test(same, same)
    assert (decision.is_promoted, decision.p_value, decision.difference) == (False, 1, 0)


def test_partial_scores_are_tested_by_drawn_signs() -> None:
    holder = [0.1 * (i % 7) for i in range(30)]
    better = paired_test(scores([score + 0.3 for score in holder]), scores(holder))
    assert better.is_promoted
    assert better.p_value == pytest.approx(1 / 20_000)
    worse = paired_test(scores([score / 2 for score in holder]), scores(holder))
    assert not worse.is_promoted
    assert worse.p_value > 0.9


def test_other_questions_are_refused() -> None:
    given_ = scores([1, 0, 1])
    with pytest.raises(DifferentQuestionsError, match="score both on the same rows"):
        paired_test(given_, dataclasses.replace(given_, question_digest="other"))
    with pytest.raises(DifferentQuestionsError, match="3 scores for 2 questions"):
        paired_test(given_, scores([1, 0]))
