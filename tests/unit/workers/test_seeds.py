from hypothesis import given
from hypothesis import strategies as st

from workers.seeds import derive_seed, permutation


def test_seeds_are_the_same_on_every_machine() -> None:
    assert derive_seed(0, "epoch", 1) == 123735704575244949
    assert permutation(8, 0) == [4, 0, 7, 3, 2, 5, 1, 6]


@given(st.integers(0, 2**63), st.integers(0, 1000))
def test_purposes_have_unrelated_seeds_that_torch_takes(seed: int, step: int) -> None:
    seeds = {derive_seed(seed, "epoch", step), derive_seed(seed, "dropout", step)}
    assert len(seeds) == 2
    assert all(0 <= value < 2**63 for value in seeds)


@given(st.integers(0, 50), st.integers(0, 9))
def test_a_permutation_holds_every_number_once(length: int, seed: int) -> None:
    assert sorted(permutation(length, seed)) == list(range(length))
