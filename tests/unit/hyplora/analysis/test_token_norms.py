"""Token counts, norms by frequency, and the norms of words from general to specific."""

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from hyplora.analysis.token_counts import count_tokens, token_rows
from hyplora.analysis.token_norms import norms_by_frequency
from hyplora.analysis.word_groups import WordGroup, word_group_norms
from hyplora.errors import AnalysisError


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    words = ["<unk>", "<s>", "Ġtime", "Ġhow", "cost", "time", "how"]
    vocabulary = {word: index for index, word in enumerate(words)}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", bos_token="<s>")


def test_tokens_are_counted_without_special_ones(tokenizer: PreTrainedTokenizerFast) -> None:
    texts = ["cost how how", "cost time"] * 400  # more than one batch
    counts = count_tokens(token_rows(tokenizer, iter(texts)), 20)
    ids = tokenizer.convert_tokens_to_ids
    assert counts[ids("cost")] == 800
    assert counts[ids("Ġhow")] == 800
    assert counts[ids("Ġtime")] == 400
    assert counts[ids("<s>")] == 0
    assert counts.sum() == 2000


def test_an_empty_text_adds_nothing() -> None:
    assert count_tokens([[], [1, 1]], 3).tolist() == [0, 2, 0]


@pytest.mark.parametrize("row", [[0, 3], [-1]])
def test_ids_of_another_vocabulary_are_refused(row: list[int]) -> None:
    with pytest.raises(AnalysisError, match="tokenizer of this model"):
        count_tokens([row], 3)


def test_bins_have_equal_ratios_and_hold_every_token_that_occurs() -> None:
    counts = torch.tensor([0, 1, 1, 9, 10, 99, 100, 1000, 0])
    norms = torch.tensor([7.0, 1, 3, 4, 5, 6, 7, 8, 9])
    found = norms_by_frequency(norms, counts, bins_a_decade=1)
    edges = [(each.lowest_count, each.highest_count) for each in found.bins]
    assert edges == [(1, 9), (10, 99), (100, 100), (1000, 1000)]
    assert [each.num_tokens for each in found.bins] == [3, 2, 1, 1]
    assert found.bins[0].mean_norm == pytest.approx(8 / 3)
    assert found.bins[0].sd_norm == pytest.approx(np.std([1, 3, 4], ddof=1))
    assert found.bins[2].sd_norm is None
    assert (found.num_tokens, found.num_unseen, found.mean_norm_unseen) == (7, 2, 8.0)


@pytest.mark.parametrize(("sign", "rho"), [(1, 1.0), (-1, -1.0)])
def test_rank_correlation_sees_order_alone(sign: int, rho: float) -> None:
    counts = torch.arange(1, 101) ** 2
    found = norms_by_frequency(10 + sign * counts.double().log(), counts)
    assert found.spearman == pytest.approx(rho)


def test_interval_of_the_correlation_covers_none_where_there_is_none() -> None:
    source = torch.Generator().manual_seed(0)
    norms = torch.rand(2000, generator=source)
    found = norms_by_frequency(norms, torch.randint(1, 1000, (2000,), generator=source))
    assert found.spearman_low is not None
    assert found.spearman_high is not None
    assert found.spearman_low < 0 < found.spearman_high
    assert found.spearman_high - found.spearman_low == pytest.approx(0.09, abs=0.01)


def test_equal_norms_have_no_correlation() -> None:
    assert norms_by_frequency(torch.ones(9), torch.arange(1, 10)).spearman is None


def test_norms_and_counts_of_different_vocabularies_are_refused() -> None:
    with pytest.raises(AnalysisError, match="norms of 3 tokens and counts of 4"):
        norms_by_frequency(torch.ones(3), torch.ones(4))
    with pytest.raises(AnalysisError, match="only 2 tokens"):
        norms_by_frequency(torch.ones(5), torch.tensor([0, 1, 1, 0, 0]))


def test_words_are_looked_up_as_they_stand_within_a_sentence(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    norms, counts = torch.arange(20.0), torch.arange(20) * 10
    group = WordGroup("some", ("time", "how", "cost", "zebra"))
    (found,) = word_group_norms(tokenizer, norms, counts, [group])
    ids = tokenizer.convert_tokens_to_ids(["Ġtime", "Ġhow", "cost"])
    assert [word.token_id for word in found.words] == ids
    assert [word.count for word in found.words] == [10 * each for each in ids]
    assert found.split_words == ("zebra",)
    assert found.mean_norm == pytest.approx(np.mean(ids))
    (nothing,) = word_group_norms(tokenizer, norms, counts, [WordGroup("none", ("zebra",))])
    assert (nothing.mean_norm, nothing.sd_norm, nothing.mean_count) == (None, None, None)
