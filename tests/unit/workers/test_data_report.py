import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from workers.data_report import DataReport, Lengths, build_report, percentiles, summary
from workers.leakage import Duplicates, LeakageReport, Overlap, find_duplicates, find_overlaps

NO_DUPLICATES = Duplicates(num_rows=0, examples=())
NO_LEAKAGE = LeakageReport({}, frozenset())
all_lengths = st.lists(st.integers(1, 10_000), min_size=1)


def overlap(num_exact: int, num_near: int) -> Overlap:
    return Overlap(
        num_rows=100,
        num_train_exact=num_exact,
        num_train_near=num_near,
        num_evaluation_exact=num_exact,
        num_evaluation_near=num_near,
        examples=(),
    )


def a_report(**given: object) -> DataReport:
    arguments: dict[str, object] = {
        "lengths": [500, 1000, 1500],
        "answer_lengths": [5, 10, 15],
        "duplicates": NO_DUPLICATES,
        "leakage": NO_LEAKAGE,
    }
    return build_report(**arguments | given)  # type: ignore[arg-type]


def test_rows_and_tokens_are_those_to_train_on() -> None:
    report = a_report(num_held_out=7, num_dropped_too_long=2)
    assert (report.num_rows, report.num_tokens, report.num_answer_tokens) == (3, 3000, 30)
    assert (report.num_held_out, report.num_dropped_too_long) == (7, 2)


@pytest.mark.parametrize(
    ("num_exact", "num_near", "num_dropped", "expected"),
    [(0, 0, 0, False), (1, 0, 0, True), (0, 1, 0, True), (1, 1, 2, False)],
)
def test_questions_that_leaked_exactly_or_nearly_are_trained_on_unless_they_are_dropped(
    num_exact: int, num_near: int, num_dropped: int, expected: bool
) -> None:
    overlaps = {"clean": overlap(0, 0), "other": overlap(num_exact, num_near)}
    leakage = LeakageReport(overlaps, frozenset())
    report = a_report(leakage=leakage, num_dropped_leaked=num_dropped)
    assert report.trains_on_leaks is expected
    assert not a_report().trains_on_leaks


def test_percentiles_are_lengths_by_nearest_rank() -> None:
    assert percentiles(range(200, 0, -1)) == Lengths(
        minimum=1, p5=10, p25=50, p50=100, p75=150, p95=190, p99=198, maximum=200
    )


@given(all_lengths)
def test_every_percentile_is_the_length_of_a_row_and_they_rise(lengths: list[int]) -> None:
    found = percentiles(lengths)
    assert found is not None
    values = list(found.model_dump().values())
    assert set(values) <= set(lengths)
    assert values == sorted(values)
    assert (values[0], values[-1]) == (min(lengths), max(lengths))


@given(all_lengths, st.sampled_from([5, 25, 50, 75, 95, 99]))
def test_a_percentile_covers_its_share_of_the_rows(lengths: list[int], percent: int) -> None:
    value = getattr(percentiles(lengths), f"p{percent}")
    assert sum(length <= value for length in lengths) * 100 >= percent * len(lengths)
    assert sum(length < value for length in lengths) * 100 < percent * len(lengths)


def test_a_report_of_no_rows_has_no_lengths() -> None:
    report = a_report(lengths=[], answer_lengths=[], num_dropped_leaked=4)
    assert (report.lengths, report.answer_lengths) == (None, None)
    assert summary(report) == "0 rows, 0 tokens; 4 dropped as leaked"


def test_a_report_survives_json() -> None:
    report = a_report(
        duplicates=find_duplicates(["a", "a"], ["b", "b"]),
        leakage=find_overlaps(["a", "b"], {"set": ["a"]}),
    )
    assert DataReport.model_validate_json(report.model_dump_json()) == report


def test_every_field_says_what_it_counts() -> None:
    for model in (DataReport, Lengths, Overlap, Duplicates):
        assert all(field.description for field in model.model_fields.values())


@pytest.mark.parametrize(
    "wrong",
    [{"num_held_out": -1}, {"num_truncated": -2}],
    ids=str,
)
def test_impossible_numbers_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        a_report(**wrong)


def test_the_summary_names_only_what_there_is_to_say() -> None:
    assert summary(a_report()) == "3 rows, 3,000 tokens (median 1,000, longest 1,500)"


def test_the_summary_counts_what_was_left_out_repeated_or_shared() -> None:
    report = a_report(
        duplicates=Duplicates(num_rows=3, examples=()),
        leakage=LeakageReport(
            {"mawps": overlap(28, 0), "svamp": overlap(0, 0), "addsub": overlap(0, 1)}, frozenset()
        ),
        num_held_out=10,
        num_truncated=1,
        num_dropped_too_long=2,
    )
    assert summary(report) == (
        "3 rows, 3,000 tokens (median 1,000, longest 1,500); "
        "10 held out; 1 truncated; 2 dropped as too long; "
        "3 repeat an earlier row; "
        "28 questions of evaluation set mawps are in the training data (28 exactly); "
        "1 question of evaluation set addsub is in the training data (0 exactly); "
        "no question of evaluation set svamp is in the training data"
    )


def test_the_summary_says_that_dropped_questions_were_in_the_data() -> None:
    leakage = LeakageReport({"mawps": overlap(28, 2), "addsub": overlap(1, 0)}, frozenset())
    assert summary(a_report(leakage=leakage, num_dropped_leaked=1200)).split("; ")[1:] == [
        "1,200 dropped as leaked",
        "30 questions of evaluation set mawps were in the training data (28 exactly)",
        "1 question of evaluation set addsub was in the training data (1 exactly)",
    ]
