"""Keys and values in memory taken once: against transformers' growing cache."""

import pytest
import torch
from transformers.cache_utils import DynamicLayer

from agetf_pipeline.experts.key_value_cache import RoomyLayer, make_cache


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_holds_what_the_growing_cache_holds(dtype: torch.dtype) -> None:
    ours, theirs = RoomyLayer(9), DynamicLayer()
    ours.batch_select_indices(torch.tensor([0]))  # nothing is held yet
    for number, kept in ((5, None), (1, [0, 2]), (2, [1]), (1, None)):
        rows = 3 if theirs.get_seq_length() == 0 else len(theirs.keys)  # type: ignore[arg-type]
        new = torch.randn(2, rows, 4, number, 8).to(dtype)
        assert ours.get_mask_sizes(number) == theirs.get_mask_sizes(number)
        for mine, other in zip(ours.update(*new), theirs.update(*new), strict=True):
            torch.testing.assert_close(mine, other, atol=0, rtol=0)
        if kept is not None:
            ours.batch_select_indices(torch.tensor(kept))
            theirs.batch_select_indices(torch.tensor(kept))
        assert ours.get_seq_length() == theirs.get_seq_length()
    assert ours.keys is not None
    torch.testing.assert_close(ours.keys, theirs.keys, atol=0, rtol=0)


def test_a_new_token_copies_none_of_those_before() -> None:
    cache = make_cache(2, 6)
    places = set()
    for number in (3, 1, 1):
        keys, _ = cache.update(torch.ones(2, 4, number, 8), torch.ones(2, 4, number, 8), 1)
        places.add(keys.data_ptr())
    assert len(places) == 1
    assert cache.get_seq_length(1) == 5
