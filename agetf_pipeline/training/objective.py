"""What a step of training minimises: the losses of one batch, put together in one place.

What holds a rendering against a photograph by its label (reconstruction, LPIPS, cycle, pairs, the
discriminator's real faces) counts by how sure the label is. What is read from a rendering at the
age that was asked for needs no label, and counts in full.

Shapes: B images, A ages, N = B x (A - 1) renderings at other ages than the source's, C H W.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from agetf_pipeline.age_transformer import losses
from agetf_pipeline.age_transformer.discriminator import Discriminator
from agetf_pipeline.age_transformer.model import AgeTransformer, Rendered
from agetf_pipeline.config.train import LossWeights
from agetf_pipeline.training.alignment import PairAligner
from agetf_pipeline.training.distributed import average, weighted_mean
from agetf_pipeline.training.guidance import Guidance

EVERY_STEPS: dict[str, int] = {"cycle": 3, "lpips": 3}
"""Steps between those that take a dear loss. It counts for the steps between (`total_loss`), so
that the mean over steps has the configured weight."""
_CYCLE_STEP, _LPIPS_STEP = 0, 1  # never both in one step
_ALIGNMENT_EFFORT = 0.1


@dataclass(frozen=True)
class StepData:
    """A batch as tensors on the device.

    Attributes:
        source: (B, 3, S, S), -1 to 1.
        ages: (B, A), years; column 0 is the source's label.
        target: (B, A, 3, S, S), -1 to 1.
        has_target: float (B, A), 1 where the target is a picture of that person at that age.
        variance: (B, A), years squared, of the target's label.
        vlm: (B, D) with rows of NaN where guidance is dropped, or None.
        progress: Share of the run that is done.
        step: Number of the step.
        adversarial: Whether the discriminator takes part yet.
    """

    source: Tensor
    ages: Tensor
    target: Tensor
    has_target: Tensor
    variance: Tensor
    vlm: Tensor | None
    progress: float
    step: int
    adversarial: bool


def generator_losses(
    model: AgeTransformer,
    discriminator: Discriminator,
    aligner: PairAligner,
    guidance: Guidance,
    data: StepData,
    weights: LossWeights,
) -> tuple[dict[str, Tensor], Rendered]:
    """Return every loss that has a weight, unweighted, and the renderings they were taken of.

    Those of `EVERY_STEPS` are there in their steps alone; LPIPS only where its network is.
    """
    encoded = model.encode(data.source, data.vlm)
    rendered = model.decode(encoded, data.ages)
    out: dict[str, Tensor] = {}
    trust = losses.curriculum_weight(data.variance, data.progress)
    _at_the_source_age(out, rendered, guidance, data, weights, trust[:, 0])
    _supervised(out, rendered, aligner, data, weights, trust)
    _guided(out, guidance, rendered, data, weights)
    gap = (data.ages - data.ages[:, :1]).abs()
    if weights.smoothness:
        mask, flow = rendered.mask.flatten(0, 1), rendered.flow.flatten(0, 1)
        out["smoothness"] = losses.smoothness_loss(mask, flow, gap.flatten()).mean()
    if weights.cycle and data.step % EVERY_STEPS["cycle"] == _CYCLE_STEP:
        # The last age has a true picture least often: coming back from it must give the source.
        # That is asked for at the source's label, and believed as far as the label is.
        back = model(rendered.image[:, -1], data.ages[:, :1], data.vlm).image[:, 0]
        out["cycle"] = weighted_mean(losses.pixel_loss(back, data.source), trust[:, 0])
    if weights.adversarial and data.adversarial:
        fake, ages = adversarial_fakes(rendered, data)
        out["adversarial"] = losses.generator_loss(discriminator(fake, ages)).mean()
    return out, rendered


def total_loss(parts: dict[str, Tensor], weights: LossWeights) -> Tensor:
    """Return the weighted sum of losses, those that skip steps counted for the steps they skip."""
    return torch.stack(
        [getattr(weights, name) * EVERY_STEPS.get(name, 1) * v for name, v in parts.items()]
    ).sum()


def discriminator_losses(
    discriminator: Discriminator, fake: Tensor, fake_ages: Tensor, data: StepData, with_r1: bool
) -> dict[str, Tensor]:
    """Return the discriminator's loss, and R1 in fp32 where it is due (unscaled)."""
    real, real_ages = data.source, data.ages[:, 0]
    curriculum = losses.curriculum_weight(data.variance[:, 0], data.progress)
    # Two calls: in one, the deviation within a group would be taken over real and rendered faces
    # together, and tell nothing of either.
    values = losses.discriminator_loss(
        discriminator(real, real_ages), discriminator(fake, fake_ages)
    )
    out = {"discriminator": weighted_mean(values, curriculum)}
    if with_r1:
        with torch.autocast(real.device.type, enabled=False):
            real = real.float().detach().requires_grad_(True)
            out["r1"] = losses.r1_penalty(discriminator(real, real_ages), real).mean()
    return out


def adversarial_fakes(rendered: Rendered, data: StepData) -> tuple[Tensor, Tensor]:
    """Return one rendering per image, (B, 3, S, S), and its age: another column each step."""
    column = 1 + data.step % (data.ages.shape[1] - 1)
    return rendered.image[:, column], data.ages[:, column]


def _at_the_source_age(
    out: dict[str, Tensor],
    rendered: Rendered,
    guidance: Guidance,
    data: StepData,
    weights: LossWeights,
    trust_B: Tensor,
) -> None:
    """Rendered at its own age, a face is itself."""
    image = rendered.image[:, 0]
    if weights.reconstruction:
        values = losses.pixel_loss(image, data.source) + losses.edge_loss(image, data.source)
        out["reconstruction"] = weighted_mean(values, trust_B)
    due = data.step % EVERY_STEPS["lpips"] == _LPIPS_STEP
    if weights.lpips and guidance.lpips is not None and due:
        out["lpips"] = weighted_mean(guidance.lpips(image, data.source), trust_B)


def _supervised(
    out: dict[str, Tensor],
    rendered: Rendered,
    aligner: PairAligner,
    data: StepData,
    weights: LossWeights,
    trust_BA: Tensor,
) -> None:
    """The same subject's pictures at other ages."""
    A, S = data.ages.shape[1], data.target.shape[-1]
    has_target_N = data.has_target[:, 1:].flatten()
    # Processes must agree: whoever has no pairs takes part in the sums of those that have.
    if not bool(average(has_target_N.sum()) > 0):
        return
    paired = has_target_N > 0
    if not bool(paired.any()):
        paired[0] = True  # it counts nothing
    counts = has_target_N[paired]
    image = rendered.image[:, 1:].reshape(-1, 3, S, S)[paired]
    target = data.target[:, 1:].reshape(-1, 3, S, S)[paired]
    source = data.source.repeat_interleave(A - 1, dim=0)[paired]
    if weights.preservation:
        out["preservation"] = weighted_mean(losses.preservation_loss(image, source), counts)
    if weights.paired:
        where = losses.head_weights(source, target)
        image, effort = aligner(image, source, target)
        values = (
            losses.pixel_loss(image, target, where)
            + losses.edge_loss(image, target, where)
            + 0.15 * losses.structure_loss(image, target, where)
            + _ALIGNMENT_EFFORT * effort
        )
        # Both labels must hold for a pair: the one that was given and the one that was asked for.
        both = (trust_BA[:, 1:] * trust_BA[:, :1]).flatten()[paired]
        out["paired"] = weighted_mean(values, both * counts)


def _guided(
    out: dict[str, Tensor],
    guidance: Guidance,
    rendered: Rendered,
    data: StepData,
    weights: LossWeights,
) -> None:
    """Age, order and identity, read from the renderings by the frozen networks."""
    B, A = data.ages.shape
    images = rendered.image[:, 1:].flatten(0, 1)
    gap_N = (data.ages[:, 1:] - data.ages[:, :1]).abs().flatten()
    if weights.age or weights.order:
        logits = guidance.age_regressor(images)
        if weights.age:
            out["age"] = losses.age_loss(logits, data.ages[:, 1:].flatten()).mean()
        if weights.order and A > 2:
            read = losses.expected_age(logits).view(B, A - 1)
            out["order"] = losses.order_loss(read, data.ages[:, 1:]).mean()
    if weights.identity:
        with torch.no_grad():
            source_BD = guidance.identity_embedder(data.source)
        z_ND = guidance.identity_embedder(images)
        source_ND = source_BD.repeat_interleave(A - 1, dim=0)
        out["identity"] = losses.identity_loss(z_ND, source_ND, gap_N).mean()
