"""Keys and values of the tokens read so far, written into memory that is taken once.

transformers' own growing cache copies everything at every token: with a prompt of 600 tokens and a
batch of 8 that was two fifths of a step's time (Janus-Pro-1B's layers in fp32 on a CPU).

Shapes: R rows, H heads, L tokens read so far, M tokens there is room for, D width of a head.
"""

from typing import Any

from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer


class RoomyLayer(DynamicLayer):
    """Keys and values of one layer; `keys` and `values` (R, H, L, D) are views of the room."""

    def __init__(self, num_tokens: int) -> None:
        """Plan room for so many tokens; it is taken with the first."""
        super().__init__()
        self.num_tokens = num_tokens
        self._room: tuple[Tensor, Tensor] | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Add tokens' keys and values, (R, H, number, D), and return all so far."""
        start = self.get_seq_length()
        end = start + key_states.shape[2]
        if self._room is None:
            num_rows, num_heads, _, width = key_states.shape
            shape = (num_rows, num_heads, self.num_tokens, width)
            self._room = key_states.new_empty(shape), value_states.new_empty(shape)
            self.dtype, self.device = key_states.dtype, key_states.device
            self.is_initialized = True
        for room, states in zip(self._room, (key_states, value_states), strict=True):
            room[:, :, start:end] = states
        return self._look(end)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows alone."""
        if self._room is None:
            return
        end, (keys, values) = self.get_seq_length(), self._room
        self._room = keys[indices], values[indices]
        self._look(end)

    def _look(self, end: int) -> tuple[Tensor, Tensor]:
        assert self._room is not None
        keys, values = (room[:, :, :end] for room in self._room)
        self.keys, self.values = keys, values
        return keys, values


def make_cache(num_layers: int, num_tokens: int) -> Cache:
    """Return an empty cache.

    Args:
        num_layers: Of the language model.
        num_tokens: Most that will be read: prompt and new ones.
    """
    return Cache(layers=[RoomyLayer(num_tokens) for _ in range(num_layers)])
