"""What each picture needs, and why: decided from measurements, said in words."""

from dataclasses import dataclass

from agetf_pipeline.config.enhance import EnhanceConfig
from agetf_pipeline.enhance.measures import Measures


@dataclass(frozen=True)
class Decision:
    """What will be done to a picture.

    Attributes:
        colourise: Whether colour is laid over it.
        super_resolve: Whether the super-resolver sees it.
        output_width_px: Of the result.
        output_height_px: Of the result.
        reason: Why, a sentence for a person.
    """

    colourise: bool
    super_resolve: bool
    output_width_px: int
    output_height_px: int
    reason: str


def decide(measures: Measures, config: EnhanceConfig) -> Decision:
    """Decide from a picture's measures what it needs.

    The shorter side is brought up to `target_px`, the aspect kept; a larger picture keeps its
    size: nothing that was photographed is thrown away. A picture that is large enough but blurred
    or blocky goes through the super-resolver too, and is reduced to its own size afterwards.
    """
    colourise, why_colour = _decide_colour(measures, config)
    super_resolve, why_size = _decide_size(measures, config)
    short = min(measures.width_px, measures.height_px)
    factor = max(1.0, config.target_px / short)
    return Decision(
        colourise,
        super_resolve,
        round(measures.width_px * factor),
        round(measures.height_px * factor),
        f"{why_colour}; {why_size}",
    )


def _decide_colour(measures: Measures, config: EnhanceConfig) -> tuple[bool, str]:
    value, limit = measures.colourfulness, config.max_grey_colourfulness
    if config.colourise == "always":
        return True, "colourised: forced by enhance.colourise"
    if config.colourise == "never":
        return False, "colour kept: forced by enhance.colourise"
    if value <= limit:
        return True, f"colourised: grey, colourfulness {value:.1f} <= {limit:g}"
    return False, f"colour kept: colourfulness {value:.1f} > {limit:g}"


def _decide_size(measures: Measures, config: EnhanceConfig) -> tuple[bool, str]:
    short = min(measures.width_px, measures.height_px)
    small = short < config.target_px
    if config.super_resolve == "never":
        how = "enlarged by Lanczos, " if small else ""
        return False, f"not super-resolved: {how}forced by enhance.super_resolve"
    if config.super_resolve == "always":
        return True, "super-resolved: forced by enhance.super_resolve"
    if small:
        return True, f"super-resolved: shorter side {short} px < {config.target_px} px"
    if measures.sharpness < config.min_sharpness:
        return True, (
            f"super-resolved and reduced: blurred, sharpness {measures.sharpness:.4f} < "
            f"{config.min_sharpness:g}"
        )
    if config.max_blockiness is not None and measures.blockiness > config.max_blockiness:
        return True, (
            f"super-resolved and reduced: JPEG blocks, blockiness {measures.blockiness:.2f} > "
            f"{config.max_blockiness:g}"
        )
    return False, f"not super-resolved: shorter side {short} px >= {config.target_px} px, no defect"
