"""Words beside dots: where there is room, and nowhere else."""

from hypothesis import given
from hypothesis import strategies as st

from jobs.analysis_report.plots.labels import place_labels
from jobs.analysis_report.plots.log_axis import decades

dots = st.lists(st.tuples(st.floats(0, 500), st.floats(0, 300)), max_size=20)


def test_a_word_stands_right_of_its_dot_if_it_can() -> None:
    ((x, y),) = filter(None, place_labels(["word"], [(100, 50)], [], 500))
    assert x > 110
    assert y == 50


def test_a_word_evades_a_dot_and_the_edge() -> None:
    (beside_dot,) = place_labels(["word"], [(100, 50)], [(115, 50)], 500)
    (at_edge,) = place_labels(["word"], [(495, 50)], [], 500)
    assert beside_dot is not None
    assert beside_dot[0] < 90
    assert at_edge is not None
    assert at_edge[0] < 485


def test_a_word_without_room_is_left_out() -> None:
    around = [(85.0, 50.0), (115.0, 50.0), (100.0, 59.0), (100.0, 41.0)]
    assert place_labels(["word"], [(100, 50)], around, 500) == [None]


@given(dots)
def test_no_word_covers_another(places: list[tuple[float, float]]) -> None:
    middles = [each for each in place_labels(["word"] * len(places), places, [], 500) if each]
    for index, (x, y) in enumerate(middles):
        for other_x, other_y in middles[index + 1 :]:
            assert abs(x - other_x) >= 20 or abs(y - other_y) >= 10.9


def test_ticks_are_the_powers_of_ten_around_a_range() -> None:
    assert decades(0.02, 300) == [0.01, 0.1, 1, 10, 100, 1000]
    assert decades(1, 100) == [1, 10, 100]
