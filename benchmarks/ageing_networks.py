"""The networks around the ageing benchmark: those that guide, and those that only judge.

The guides learn from the train part by the pipeline's own functions; the evaluators learn from
people of their own. No one reads the other's weights.
"""

import time
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from agetf_pipeline.age_transformer.sizes import ANCHORS_YEARS
from agetf_pipeline.config.evaluate import TrainEvaluatorsConfig
from agetf_pipeline.config.train import DistillConfig
from agetf_pipeline.core.fitting import FitSettings
from agetf_pipeline.core.weights import save_weights
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.evaluation.judges import AGE_KIND, IDENTITY_KIND, Judge, load_judge
from agetf_pipeline.training import guidance
from agetf_pipeline.training.critics import EMBEDDING_DIM
from agetf_pipeline.training.dataset import FaceData
from agetf_pipeline.training.guidance import Guidance
from benchmarks.ageing_data import SIZE_PX, Scale

OURS, UNET, NEAREST, COPY = "AgeTransformer", "residual U-Net", "nearest neighbour", "copy"
CPU = torch.device("cpu")


def judges(scale: Scale, folder: Path) -> tuple[Judge, Judge]:
    """Train the age estimator and the identity embedder that only measure, or load them."""
    from agetf_pipeline.evaluation import faces, training

    config = TrainEvaluatorsConfig(
        num_steps=scale.judge_steps, batch_size=32, lr=2e-3, input_px=SIZE_PX, width=24,
        num_identities=scale.num_judge_people, num_ages_per_identity=5, seed=7,
    )  # fmt: skip
    parts = (
        ("age_estimator", AGE_KIND, training.train_age_estimator),
        ("identity_embedder", IDENTITY_KIND, training.train_identity_embedder),
    )
    paths = {name: folder / "judges" / f"{name}.safetensors" for name, _, _ in parts}
    if not all(path.exists() for path in paths.values()):
        drawn = faces.draw_faces(config)
        for name, _, train in parts:
            paths[name].parent.mkdir(parents=True, exist_ok=True)
            train(drawn, config, paths[name], paths[name].with_suffix(".pt"), name, CPU)
    age, identity = (load_judge(paths[name], kind, CPU) for name, kind, _ in parts)
    return age, identity


def guides(scale: Scale, data: FaceData, folder: Path) -> Guidance:
    """Distil the two networks that guide training, from the train part alone, or load them."""
    settings = DistillConfig(num_steps=scale.guidance_steps, lr=2e-3)
    workspace = Workspace(folder)
    fits = {
        guidance.AGE_REGRESSOR: guidance.fit_age_regressor,
        guidance.IDENTITY_EMBEDDER: guidance.fit_identity_embedder,
    }
    for index, (name, fit) in enumerate(fits.items()):
        path = guidance.guidance_path(workspace, name)
        if path.exists():
            continue
        torch.manual_seed(settings.seed + index)
        network = guidance.build_critic(name, settings.width, settings.input_px)
        how = FitSettings(
            settings.num_steps, settings.batch_size, settings.lr, seed=settings.seed + index
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        fit(data, network, how, path.with_suffix(".pt"), "ageing benchmark")
        card = {"kind": name, "width": settings.width, "input_px": settings.input_px,
                "trained_on": "synthetic"}  # fmt: skip
        save_weights(path, network, card)
    return guidance.load_guidance(workspace, CPU)


@torch.inference_mode()
def perceptual_features(judge: Judge, images_NHWC: np.ndarray) -> list[torch.Tensor]:
    """Return unit features, (N, C, H, W) each, of the evaluator's three residual blocks.

    Args:
        judge: The held-out identity embedder or age estimator.
        images_NHWC: uint8.
    """
    from agetf_pipeline.evaluation.judges import to_input

    x = to_input(images_NHWC, judge.input_px, judge.device)
    features = []
    trunk = judge.module.trunk
    assert isinstance(trunk, torch.nn.Sequential)
    for index, layer in enumerate(trunk):
        x = layer(x)
        if index >= 2:
            features.append(torch.nn.functional.normalize(x, dim=1))
    return features


def perceptual_distance(
    judge: Judge, images_NHWC: np.ndarray, truth_NHWC: np.ndarray, batch: int = 64
) -> np.ndarray:
    """Return the synthetic perceptual distance of image pairs, float64 (N,), 0 upwards.

    The squared distance of unit feature vectors, averaged over places, summed over three depths
    of a network that only judges. It is built as LPIPS is (Zhang et al. 2018, equation 1, without
    learned weights) but its features were learned from drawings: the two are not comparable.
    """
    values = []
    for start in range(0, len(images_NHWC), batch):
        pairs = zip(
            perceptual_features(judge, images_NHWC[start : start + batch]),
            perceptual_features(judge, truth_NHWC[start : start + batch]),
            strict=True,
        )
        values.append(sum((a - b).square().sum(dim=1).mean(dim=(1, 2)) for a, b in pairs))
    return torch.cat([torch.as_tensor(value) for value in values]).double().numpy()


def costs(
    ours: torch.nn.Module, unet: torch.nn.Module, embedder: torch.nn.Module, data: FaceData
) -> dict[str, dict[str, float]]:
    """Measure ten renderings of one face: parameters, GFLOP (two per multiplication), CPU-seconds.

    The nearest neighbour pays for one embedding; the embeddings of the faces it chooses from are
    made beforehand. Copying costs nothing and is left out.
    """
    face = torch.zeros(1, 3, SIZE_PX, SIZE_PX)
    ages = torch.tensor(ANCHORS_YEARS)
    tens = face.expand(len(ages), -1, -1, -1)
    known = torch.zeros(len(data), EMBEDDING_DIM)
    calls = {
        OURS: (ours, lambda: ours(face, ages[None])),
        UNET: (unet, lambda: unet(tens, ages, ages)),
        NEAREST: (embedder, lambda: known @ embedder(face)[0]),
    }
    found = {}
    for name, (network, call) in calls.items():
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            call()
        seconds = []
        with torch.inference_mode():
            for _ in range(9):
                begin_s = time.process_time()
                call()
                seconds.append(time.process_time() - begin_s)
        found[name] = {
            "num_parameters": sum(p.numel() for p in network.parameters()),
            "gflop": counter.get_total_flops() / 1e9,
            "cpu_s": float(np.median(seconds)),
        }
    return found
