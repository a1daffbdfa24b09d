"""All answers to a question as one tree of tokens: one forward pass scores every answer.

The nodes are laid behind the prompt, parents before children. Each node may look at the prompt and
at its own ancestors (a tree attention mask) and stands at the position it would have were its
answer alone (its depth), so the next-token distribution at a node is the one that a plain pass
over that answer gives. The probability of an answer is the product along its path and of the stop
token after it.

Shapes: B batch, N nodes, A answers, F forms of an answer, V vocabulary, P prompt tokens,
L = P + N.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

_ROOT = -1


@dataclass(frozen=True)
class AnswerTrie:
    """Answers as token sequences that share their beginnings.

    Attributes:
        token_ids: Token of each node, parents before children.
        parents: Index of each node's parent, -1 where the parent is the end of the prompt.
        ends: Per answer the nodes at which one of its forms ends.
        stop_ids: Tokens that end an answer.
    """

    token_ids: tuple[int, ...]
    parents: tuple[int, ...]
    ends: tuple[tuple[int, ...], ...]
    stop_ids: tuple[int, ...]

    @property
    def num_nodes(self) -> int:
        """Number of nodes, the prompt's end not counted."""
        return len(self.token_ids)

    @cached_property
    def depths(self) -> tuple[int, ...]:
        """Depth of each node, 0 for the first token of an answer."""
        depths: list[int] = []
        for parent in self.parents:
            depths.append(0 if parent == _ROOT else depths[parent] + 1)
        return tuple(depths)

    @cached_property
    def ancestors(self) -> Tensor:
        """bool (N, N): whether column is row's ancestor, or row itself."""
        ancestors_NN = torch.eye(self.num_nodes, dtype=torch.bool)
        for node, parent in enumerate(self.parents):
            if parent != _ROOT:
                ancestors_NN[node] |= ancestors_NN[parent]
        return ancestors_NN

    def paths(self, answer: int) -> list[tuple[int, ...]]:
        """Return the nodes along each form of an answer, first token first."""
        return [
            tuple(self.ancestors[end].nonzero().flatten().tolist()) for end in self.ends[answer]
        ]

    def attention_mask(self, num_prompt: int, dtype: torch.dtype) -> Tensor:
        """Return the additive mask (1, 1, L, L): 0 where a row may look, the least value elsewhere.

        Args:
            num_prompt: Tokens of the prompt, the image's included; attended causally.
            dtype: The network's.
        """
        length = num_prompt + self.num_nodes
        allowed_LL = torch.zeros(length, length, dtype=torch.bool)
        allowed_LL[:num_prompt, :num_prompt] = torch.ones(num_prompt, num_prompt).tril().bool()
        allowed_LL[num_prompt:, :num_prompt] = True
        allowed_LL[num_prompt:, num_prompt:] = self.ancestors
        mask_LL = torch.zeros(length, length, dtype=dtype)
        return mask_LL.masked_fill(~allowed_LL, torch.finfo(dtype).min)[None, None]

    def position_ids(self, num_prompt: int) -> Tensor:
        """Return the positions, int64 (1, L): siblings share theirs."""
        nodes = num_prompt + torch.tensor(self.depths, dtype=torch.int64)
        return torch.cat([torch.arange(num_prompt), nodes])[None]

    def answer_log_probs(self, log_probs_BNV: Tensor) -> Tensor:
        """Return log p of every answer, float (B, A), summed over its forms.

        Args:
            log_probs_BNV: float (B, 1 + N, V), next-token log-probabilities at the prompt's last
                token and at every node.
        """
        device = log_probs_BNV.device
        rows_N = torch.tensor(self.parents, device=device) + 1
        edges_BN = log_probs_BNV[:, rows_N, torch.tensor(self.token_ids, device=device)]
        reach_BN = edges_BN @ self.ancestors.to(device, edges_BN.dtype).T
        stops_BN = torch.logsumexp(log_probs_BNV[:, 1:, list(self.stop_ids)], dim=-1)
        whole_BN = reach_BN + stops_BN
        answers = [torch.logsumexp(whole_BN[:, list(ends)], dim=1) for ends in self.ends]
        return torch.stack(answers, dim=1)

    def next_token_targets(self, targets_BA: Tensor, num_tokens: int) -> Tensor:
        """Return the next-token distributions that make `targets_BA` the distribution of answers.

        Args:
            targets_BA: float (B, A), rows sum to 1. Answers must have one form each.
            num_tokens: Size of the vocabulary, V.

        Returns:
            float (B, 1 + N, V), rows sum to 1, or to 0 at nodes that the targets never reach.
        """
        ends_A = torch.tensor([ends[0] for ends in self.ends])
        ending_BN = targets_BA.new_zeros(len(targets_BA), self.num_nodes)
        ending_BN[:, ends_A] = targets_BA
        mass_BN = ending_BN @ self.ancestors.to(ending_BN.dtype)
        targets_BNV = targets_BA.new_zeros(len(targets_BA), self.num_nodes + 1, num_tokens)
        rows_N = torch.tensor(self.parents) + 1
        targets_BNV[:, rows_N, torch.tensor(self.token_ids)] = mass_BN
        targets_BNV[:, 1:, self.stop_ids[0]] = ending_BN
        return targets_BNV / targets_BNV.sum(dim=-1, keepdim=True).clamp_min(1e-12)


def build_trie(answers: Sequence[Sequence[Sequence[int]]], stop_ids: Sequence[int]) -> AnswerTrie:
    """Build the tree of all answers.

    Args:
        answers: Per answer its forms (with and without a leading space, say), each a sequence of
            token ids. Equal forms of one answer count once.
        stop_ids: Tokens that end an answer.

    Raises:
        ValueError: A form is empty, or two answers share one (the tokenizer cannot tell them
            apart).
    """
    nodes: dict[tuple[int, ...], int] = {}
    token_ids: list[int] = []
    parents: list[int] = []
    owner: dict[tuple[int, ...], int] = {}
    for index, forms in enumerate(answers):
        for form in forms:
            sequence = tuple(form)
            if not sequence or owner.setdefault(sequence, index) != index:
                raise ValueError(
                    f"answer {index} has tokens {sequence}: expected some, and no other answer's"
                )
            for length in range(1, len(sequence) + 1):
                prefix = sequence[:length]
                if prefix not in nodes:
                    nodes[prefix] = len(token_ids)
                    token_ids.append(prefix[-1])
                    parents.append(nodes[prefix[:-1]] if length > 1 else _ROOT)
    ends = tuple(
        tuple(nodes[form] for form in dict.fromkeys(tuple(form) for form in forms))
        for forms in answers
    )
    return AnswerTrie(tuple(token_ids), tuple(parents), ends, tuple(stop_ids))
