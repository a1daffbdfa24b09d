"""Keys and values of the tokens read so far, written into memory that is taken once.

transformers' own growing cache copies everything at every token: with a prompt of 600 tokens and a
batch of 8 that was two fifths of a step's time (Janus-Pro-1B's layers in fp32 on a CPU).

Shapes: R rows, H heads, L tokens read so far, M tokens there is room for, D width of a head.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

Room: TypeAlias = tuple[Tensor, Tensor]
"""Memory for the keys and values of a layer, (R, H, M, D) each."""


class RoomyLayer(DynamicLayer):
    """Keys and values of one layer; `keys` and `values` (R, H, L, D) are views of the room.

    Attributes:
        room: What they are views of; zeros where nothing was written yet.
    """

    def __init__(self, room: Room, num_read: int = 0) -> None:
        """Read a room of which so many tokens are written already."""
        super().__init__()
        self.room = room
        self.dtype, self.device = room[0].dtype, room[0].device
        self.is_initialized = True
        self._look(num_read)

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Add tokens' keys and values, (R, H, number, D), and return all so far."""
        start = self.get_seq_length()
        end = start + key_states.shape[2]
        for room, states in zip(self.room, (key_states, value_states), strict=True):
            room[:, :, start:end] = states
        return self._look(end)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows alone, in this order; only rows that come to another place are copied."""
        end = self.get_seq_length()
        places = torch.arange(len(indices), device=indices.device)
        moved = places[indices != places]
        for room in self.room:
            room[moved] = room[indices[moved]]
        keys, values = self.room
        self.room = keys[: len(indices)], values[: len(indices)]
        self._look(end)

    def _look(self, end: int) -> tuple[Tensor, Tensor]:
        self.keys, self.values = (room[:, :, :end] for room in self.room)
        return self.keys, self.values


def make_rooms(settings: Any, num_rows: int, num_tokens: int, like: Tensor) -> list[Room]:
    """Take memory for keys and values.

    Args:
        settings: Of the language model, as transformers has them.
        num_rows: Rows of the batch.
        num_tokens: Most that will be read: prompt and new ones.
        like: A tensor of the type and on the device that keys and values have.
    """
    width = getattr(settings, "head_dim", None) or (
        settings.hidden_size // settings.num_attention_heads
    )
    shape = (num_rows, settings.num_key_value_heads, num_tokens, width)
    return [
        (like.new_zeros(shape), like.new_zeros(shape)) for _ in range(settings.num_hidden_layers)
    ]


def cache_of(rooms: Sequence[Room], rows: slice = slice(None), num_read: int = 0) -> Cache:
    """Return the cache of some rows of rooms, of which so many tokens are written already."""
    return Cache(
        layers=[RoomyLayer((keys[rows], values[rows]), num_read) for keys, values in rooms]
    )


def closing_gaps(goes_on_R: Tensor) -> Tensor:
    """Return the rows that go on, int64, the last of them in the places of those that do not.

    With `RoomyLayer.batch_select_indices` a row that ends costs one row's copy, not everybody's.
    """
    kept = goes_on_R.nonzero()[:, 0]
    stay, come = kept[kept < len(kept)], kept[kept >= len(kept)]
    order = torch.empty_like(kept)
    order[stay] = stay
    order[(~goes_on_R[: len(kept)]).nonzero()[:, 0]] = come
    return order
