"""The two halves of a training step as modules, and how several processes share them.

DistributedDataParallel and FSDP2 exchange gradients from hooks that fire around a module's
`forward`: so the losses are computed inside one.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from agetf_pipeline.age_transformer.discriminator import Discriminator
from agetf_pipeline.age_transformer.model import AgeTransformer, Rendered
from agetf_pipeline.core.errors import ConfigError
from agetf_pipeline.training import objective
from agetf_pipeline.training.alignment import PairAligner
from agetf_pipeline.training.distributed import World
from agetf_pipeline.training.objective import StepData

Sharding = Literal["none", "fsdp2"]


class GeneratorStep(nn.Module):
    """Losses of model and aligner; the networks that judge them are arguments, not parts."""

    def __init__(self, model: AgeTransformer, aligner: PairAligner) -> None:
        super().__init__()
        self.model = model
        self.aligner = aligner

    def forward(
        self, discriminator: Discriminator, *arguments: Any
    ) -> tuple[dict[str, Tensor], Rendered]:
        """Return `objective.generator_losses`; the arguments are those behind the aligner."""
        return objective.generator_losses(self.model, discriminator, self.aligner, *arguments)


class DiscriminatorStep(nn.Module):
    """Losses of the discriminator."""

    def __init__(self, discriminator: Discriminator) -> None:
        super().__init__()
        self.discriminator = discriminator

    def forward(
        self, fake: Tensor, fake_ages: Tensor, data: StepData, with_r1: bool
    ) -> dict[str, Tensor]:
        """Return `objective.discriminator_losses`."""
        return objective.discriminator_losses(self.discriminator, fake, fake_ages, data, with_r1)


def shard(model: AgeTransformer, aligner: PairAligner, world: World, device: torch.device) -> None:
    """Share the parameters of the generator among the processes (FSDP2), in place.

    Each transformer layer and each decoder block is gathered when it is needed, the rest together.
    To be called before optimisers are made. The discriminator stays whole: it is small, and R1
    differentiates it twice, which gathering by hooks does not survive.

    Raises:
        ConfigError: There is one process only.
    """
    if world.size == 1:
        raise ConfigError(
            "Expected several processes for train.sharding=fsdp2; found one. Set "
            "train.num_processes, start with torchrun, or set train.sharding=none."
        )
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

    mesh = init_device_mesh(device.type, (world.size,))
    levels = [block for level in model.decoder_blocks for block in level]  # type: ignore[union-attr]
    for module in (*model.layers, *levels, model, aligner):
        fully_shard(module, mesh=mesh)
        if device.type == "cpu":
            # gloo adds up but does not average.
            assert isinstance(module, FSDPModule)
            module.set_force_sum_reduction_for_comms(True)
    for name in ("encode", "decode"):
        register_fsdp_forward_method(model, name)


def steps_of(
    model: AgeTransformer,
    aligner: PairAligner,
    discriminator: Discriminator,
    world: World,
    sharding: Sharding,
) -> tuple[nn.Module, nn.Module]:
    """Return the generator's and the discriminator's half, exchanging gradients where needed."""
    generator, judge = GeneratorStep(model, aligner), DiscriminatorStep(discriminator)
    if world.size == 1:
        return generator, judge
    if sharding == "none":
        # Steps without pairs leave the aligner out.
        generator = DistributedDataParallel(generator, find_unused_parameters=True)
    return generator, DistributedDataParallel(judge)
