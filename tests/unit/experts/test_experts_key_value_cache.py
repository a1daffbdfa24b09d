"""Keys and values in memory taken once: against transformers' growing cache."""

import pytest
import torch
from transformers import LlamaConfig
from transformers.cache_utils import DynamicLayer

from agetf_pipeline.experts.key_value_cache import (
    RoomyLayer,
    cache_of,
    closing_gaps,
    make_rooms,
)

_SETTINGS = LlamaConfig(
    hidden_size=32, num_attention_heads=4, num_key_value_heads=4, num_hidden_layers=2
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_holds_what_the_growing_cache_holds(dtype: torch.dtype) -> None:
    ours, theirs = (
        RoomyLayer(make_rooms(_SETTINGS, 3, 9, torch.empty(0).to(dtype))[0]),
        (DynamicLayer()),
    )
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
    cache = cache_of(make_rooms(_SETTINGS, 2, 6, torch.empty(0)))
    places = set()
    for number in (3, 1, 1):
        keys, _ = cache.update(torch.ones(2, 4, number, 8), torch.ones(2, 4, number, 8), 1)
        places.add(keys.data_ptr())
    assert len(places) == 1
    assert cache.get_seq_length(1) == 5


def test_prompts_read_a_few_at_a_time_lie_in_one_room() -> None:
    rooms, states = make_rooms(_SETTINGS, 5, 7, torch.empty(0)), torch.randn(5, 4, 3, 8)
    for start in (0, 2, 4):
        rows = slice(start, start + 2)
        part = cache_of(rooms, rows)
        assert part.get_seq_length() == 0
        for layer in (0, 1):
            part.update(states[rows], -states[rows], layer)
    whole = cache_of(rooms, num_read=3)
    keys, values = whole.update(torch.ones(5, 4, 1, 8), torch.ones(5, 4, 1, 8), 1)
    torch.testing.assert_close(keys[:, :, :3], states, atol=0, rtol=0)
    torch.testing.assert_close(values[:, :, :3], -states, atol=0, rtol=0)
    assert not rooms[1][0][:, :, 4:].any()  # what nobody wrote to is no NaN


def test_the_last_rows_take_the_places_of_those_that_ended() -> None:
    goes_on = torch.tensor([True, False, True, False, False, True, True])
    assert closing_gaps(goes_on).tolist() == [0, 5, 2, 6]
    assert closing_gaps(~goes_on).tolist() == [3, 1, 4]
    assert closing_gaps(torch.tensor([False, False, True])).tolist() == [2]
    assert closing_gaps(torch.tensor([True, True])).tolist() == [0, 1]
    layer = RoomyLayer(make_rooms(_SETTINGS, 7, 2, torch.empty(0))[0])
    states = torch.randn(7, 4, 1, 8)
    layer.update(states, states)
    place = layer.room[0].data_ptr()
    layer.batch_select_indices(closing_gaps(goes_on))
    assert layer.room[0].data_ptr() == place  # no row is copied but those that fill a gap
    torch.testing.assert_close(layer.keys, states[[0, 5, 2, 6]], atol=0, rtol=0)
