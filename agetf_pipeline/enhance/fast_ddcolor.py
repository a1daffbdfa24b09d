"""DDColor for inference: the same function as `DDColor`, without its large intermediate maps.

After the last ReLU everything is linear: the pixel shuffle and the 2 x 2 mean move values about,
the colour queries mix channels, and the 1 x 1 refinement mixes what they gave. So the refinement is
multiplied into the queries (Q x C, tiny) first, and the two planes that come of it are all that is
shuffled, averaged and kept: no map of C or of Q channels at full size is ever made.

The attentions are written out, because `nn.MultiheadAttention` transposes a batch in a way that
makes its projections copy their weights once per token: six times slower for two pictures than one.

Shape suffixes: B batch, C channels of the pixel decoder, D hidden size, H W image, h w feature map,
N heads, Q queries, S tokens, T tokens attended to, P the planes a and b.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from agetf_pipeline.enhance.ddcolor import (
    ColourDecoder,
    ColourLayer,
    DDColor,
    fold_spectral_norm,
    sine_positions,
)

_TOKENS_AT_ONCE = 512


class FastDDColor(nn.Module):
    """A trained DDColor, rearranged; the network it is made from is used up.

    In fp32 its answer differs from the plain one's by rounding alone.
    """

    mean: Tensor
    std: Tensor
    last_weight: Tensor
    last_bias: Tensor
    refine_QP: Tensor
    grey_P3: Tensor
    bias_P: Tensor

    def __init__(self, network: DDColor) -> None:
        """Fold the spectral norms of `network` and take its parts over.

        Args:
            network: In evaluation mode. Its spectral norms are folded in place.
        """
        super().__init__()
        fold_spectral_norm(network)
        decoder = network.decoder
        self.encoder, self.blocks, self.colours = network.encoder, decoder.blocks, decoder.colours
        self.scale = decoder.last.scale
        weight, bias = decoder.last.conv.weight.detach(), decoder.last.conv.bias
        assert bias is not None
        self.num_channels = weight.shape[0] // self.scale**2
        # Channel c, sub-pixel s stands at c * S + s; with s outermost, the channels of a sub-pixel
        # lie side by side in memory, and mixing them is one plain matrix product.
        order = torch.arange(weight.shape[0]).view(self.num_channels, -1).T.flatten()
        num_queries = network.size.num_queries
        refine, offset = network.refine.weight.detach()[:, :, 0, 0], network.refine.bias
        assert offset is not None
        for name, tensor in {
            "mean": network.mean,
            "std": network.std,
            "last_weight": weight[order, :, 0, 0],
            "last_bias": bias.detach()[order],
            "refine_QP": refine[:, :num_queries].T,
            "grey_P3": refine[:, num_queries:],
            "bias_P": offset.detach(),
        }.items():
            self.register_buffer(name, tensor.clone().contiguous())

    def forward(self, grey_B3HW: Tensor) -> Tensor:
        """Return the ab planes, float (B, 2, H, W), as `DDColor.forward` does."""
        x_B3HW = (grey_B3HW - self.mean) / self.std
        features = self.encoder(x_B3HW)
        x_BChw, scales = features[3], []
        for block, skip in zip(self.blocks, features[2::-1], strict=True):
            x_BChw = block(x_BChw, skip)
            scales.append(x_BChw)
        mix_BCP = decode_colours(self.colours, scales).transpose(1, 2) @ self.refine_QP
        planes_BPHW = self._last(x_BChw, mix_BCP)
        grey_BPHW = F.conv2d(x_B3HW, self.grey_P3[:, :, None, None], self.bias_P)
        return planes_BPHW.float() + grey_BPHW.float()

    def _last(self, x_BChw: Tensor, mix_BCP: Tensor) -> Tensor:
        """Upsample by pixel shuffle and mix the channels; the mixing comes first."""
        batch, _, height, width = x_BChw.shape
        rows_BhwC = x_BChw.permute(0, 2, 3, 1)
        planes = []
        for picture, mix_CP in zip(rows_BhwC, mix_BCP, strict=True):
            # Some rows at a time: what is wide then stays in the processor's cache.
            for part in picture.flatten(0, 1).split(_TOKENS_AT_ONCE):
                wide = F.relu_(F.linear(part, self.last_weight, self.last_bias))
                planes.append(wide.view(-1, self.num_channels) @ mix_CP.to(wide.dtype))
        planes_BhwSP = torch.cat(planes).view(batch, height, width, -1, 2)
        shuffled = F.pixel_shuffle(planes_BhwSP.permute(0, 4, 3, 1, 2).flatten(1, 2), self.scale)
        return F.avg_pool2d(F.pad(shuffled, (1, 0, 1, 0), mode="replicate"), 2, stride=1)


def decode_colours(decoder: ColourDecoder, scales: list[Tensor]) -> Tensor:
    """Do what `ColourDecoder.forward` does: (B, D', h, w) of three scales to (B, Q, C)."""
    memory, keys = [], []
    for index, (project, x_BChw) in enumerate(zip(decoder.inputs, scales, strict=True)):
        assert isinstance(project, nn.Conv2d)
        height, width = x_BChw.shape[2:]
        tokens_BTC = x_BChw.permute(0, 2, 3, 1).flatten(1, 2)
        tokens_BTD = F.linear(tokens_BTC, project.weight[:, :, 0, 0], project.bias)
        tokens_BTD = tokens_BTD + decoder.level.weight[index]
        memory.append(tokens_BTD)
        keys.append(tokens_BTD + sine_positions(height, width, tokens_BTD))
    position_QD = decoder.query_position.weight
    x_BQD = decoder.query_start.weight.expand(scales[0].shape[0], -1, -1)
    for index, layer in enumerate(decoder.layers):
        assert isinstance(layer, ColourLayer)
        scale = index % len(scales)
        seen = attend(layer.cross, x_BQD + position_QD, keys[scale], memory[scale])
        x_BQD = layer.cross_norm(x_BQD + seen)
        query = x_BQD + position_QD
        x_BQD = layer.self_norm(x_BQD + attend(layer.self_, query, query, x_BQD))
        x_BQD = layer.mlp_norm(x_BQD + layer.contract(F.relu(layer.expand(x_BQD))))
    first, second, third = decoder.mlp
    return third(F.relu(second(F.relu(first(decoder.norm(x_BQD))))))


def attend(attention: nn.MultiheadAttention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return what `attention(query, key, value)` does, (B, S, D); the others are (B, T, D)."""
    weights = attention.in_proj_weight.chunk(3)
    biases = attention.in_proj_bias.chunk(3)
    query_BNSD, key_BNTD, value_BNTD = [
        F.linear(x, weight, bias).unflatten(2, (attention.num_heads, -1)).transpose(1, 2)
        for x, weight, bias in zip((query, key, value), weights, biases, strict=True)
    ]
    seen_BNSD = F.scaled_dot_product_attention(query_BNSD, key_BNTD, value_BNTD)
    return attention.out_proj(seen_BNSD.transpose(1, 2).flatten(2))
