"""The tiny Janus: transformers' architecture at a size for two cores, and how it starts.

`janus_tiny_training` trains it.

Shapes: B batch, H W C image.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from agetf_pipeline.core.errors import ConfigError
from agetf_pipeline.data.schemas import NUM_AGE_BINS
from agetf_pipeline.experts.janus import CODE_VERSION, Janus, JanusProcessor

WIDTH = 128
"""Of image tokens and words alike."""

_IMAGE, _BEGIN, _END = "<image_placeholder>", "<begin_of_image>", "<end_of_image>"
_SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", _IMAGE, _BEGIN, _END, "<|User|>", "<|Assistant|>")
_TEMPLATE = (
    "{% for message in messages %}<|User|>:{% for item in message.content %}"
    "{% if item.type == 'image' %} <image_placeholder>{% else %} {{ item.text }}{% endif %}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}<|Assistant|>:{% endif %}"
)
_PATCHES_A_SIDE = 4
_INIT_STD = 0.08


def build_processor(
    input_px: int, texts: list[str], individual_digits: bool = False
) -> JanusProcessor:
    """Return a processor with a word-level tokenizer: the words of `texts`, numbers, marks.

    Spaces belong to the word after them, so that decoding gives back the text.

    Args:
        input_px: Side of the images.
        texts: What the vocabulary has to spell.
        individual_digits: A token per digit, as the published tokenizer has it, instead of one per
            number. The tiny network learns ages much faster as one choice among 101: with digits
            "3" begins both 3 and 34.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import JanusImageProcessor, PreTrainedTokenizerFast
    from transformers import JanusProcessor as Processor

    splitter = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(prepend_scheme="never"),
            pre_tokenizers.Punctuation(),
            pre_tokenizers.Digits(individual_digits=individual_digits),
        ]
    )
    words = {piece for text in texts for piece, _ in splitter.pre_tokenize_str(text)}
    words |= {str(number) for number in range(10 if individual_digits else NUM_AGE_BINS)}
    words |= {"▁", ":", "▁:"}
    vocabulary = {word: index for index, word in enumerate([*_SPECIAL, *sorted(words)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="never")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", vocabulary["<s>"])]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        padding_side="left",
        extra_special_tokens={"image_token": _IMAGE, "boi_token": _BEGIN, "eoi_token": _END,
                              "user_token": "<|User|>", "assistant_token": "<|Assistant|>"},
    )  # fmt: skip
    return Processor(
        JanusImageProcessor(size={"height": input_px, "width": input_px}),
        fast,
        chat_template=_TEMPLATE,
        num_image_tokens=_PATCHES_A_SIDE**2,
    )


def tiny_config(input_px: int, processor: JanusProcessor, num_layers: int = 1) -> Any:
    """Return the architecture of the tiny Janus: 4 x 4 patches, one layer on either side.

    Source: docs/decisions/0006-janus.md has what was tried.
    """
    from transformers import JanusConfig, JanusVisionConfig, JanusVQVAEConfig, LlamaConfig

    tokenizer = processor.tokenizer
    return JanusConfig(
        vision_config=JanusVisionConfig(
            hidden_size=WIDTH, num_hidden_layers=num_layers, num_attention_heads=8,
            mlp_ratio=2.0, image_size=input_px, patch_size=input_px // _PATCHES_A_SIDE,
            projection_dim=WIDTH, depth=2, num_image_tokens=processor.num_image_tokens,
            initializer_range=_INIT_STD,
        ),
        # Never used (it draws images), but part of the class: as small as its group norms permit.
        vq_config=JanusVQVAEConfig(
            base_channels=32, channel_multiplier=[1], num_res_blocks=1, latent_channels=4,
            embed_dim=4, num_embeddings=8, projection_dim=8, image_token_embed_dim=WIDTH,
            num_hidden_layers=1,
        ),
        text_config=LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=WIDTH, intermediate_size=2 * WIDTH,
            num_hidden_layers=num_layers, num_attention_heads=16, num_key_value_heads=16,
            max_position_embeddings=512, initializer_range=_INIT_STD, tie_word_embeddings=False,
            pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        ),
        image_token_id=tokenizer.image_token_id,
        tie_word_embeddings=False,
    )  # fmt: skip


def build_tiny_janus(
    input_px: int,
    texts: list[str],
    seed: int,
    individual_digits: bool = False,
    num_layers: int = 1,
) -> Janus:
    """Return an untrained tiny Janus that knows the words of `texts`.

    Args:
        input_px: Side of the images, a multiple of 4.
        texts: Questions and captions.
        seed: Of the weights.
        individual_digits: See `build_processor`.
        num_layers: Of the image encoder, and of the language model.

    Raises:
        ConfigError: The side cannot be cut into 4 patches.
    """
    from transformers import JanusForConditionalGeneration

    if input_px % _PATCHES_A_SIDE:
        raise ConfigError(
            f"Expected train_experts.experts.janus.input_px to be a multiple of {_PATCHES_A_SIDE}; "
            f"found {input_px}. Take 64."
        )
    processor = build_processor(input_px, texts, individual_digits)
    torch.manual_seed(seed)
    model = JanusForConditionalGeneration(tiny_config(input_px, processor, num_layers))
    model.model.vqmodel.requires_grad_(False)
    with torch.no_grad():
        # Heads that start by looking at different places learn where things are much sooner.
        for layer in model.model.language_model.layers:
            layer.self_attn.q_proj.weight.mul_(2.0)
            layer.self_attn.k_proj.weight.mul_(2.0)
        model.model.vision_model.embeddings.position_embedding.weight.mul_(1.0 / _INIT_STD)
    return Janus(model.eval(), processor, f"untrained-{CODE_VERSION}", "nothing")


def whiten_patches(janus: Janus, pixels_BCHW: Tensor) -> None:
    """Set the patch embedding to the whitened principal components of pictures' patches.

    Light and shade hold nearly all variance of a face; wrinkles hold next to none. Starting with
    unit variance in every component, the network need not spend its training on finding them.
    """
    embedding = janus.model.model.vision_model.embeddings.patch_embedding
    side = embedding.kernel_size[0]
    patches = F.unfold(pixels_BCHW, side, stride=side).transpose(1, 2).flatten(0, 1).double()
    mean = patches.mean(dim=0)
    covariance = (patches - mean).T @ (patches - mean) / len(patches)
    values, vectors = torch.linalg.eigh(covariance)
    kept = embedding.out_channels
    scaled = vectors[:, -kept:] / (values[-kept:].clamp_min(0) + 0.01).sqrt()
    with torch.no_grad():
        embedding.weight.copy_(scaled.T.reshape(embedding.weight.shape))
        embedding.bias.copy_(-(scaled.T @ mean))
