"""Loaders ask before they load: a foreign enhancer, and PyTorch files that hold objects."""

import argparse

import numpy as np
import pytest
import torch

from agetf_pipeline.checkpoints.catalogue import Catalogue
from agetf_pipeline.checkpoints.importing import import_path
from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.errors import WeightsError
from agetf_pipeline.core.weights import read_state, save_weights
from agetf_pipeline.enhance.colour import DDColor
from agetf_pipeline.enhance.ddcolor import SIZES
from agetf_pipeline.enhance.esrgan import build_esrgan
from agetf_pipeline.enhance.load import load_colouriser, load_super_resolver
from agetf_pipeline.stages import train_evaluators

PATHS = {"ddcolor": "models/checkpoints/my_ddcolor.pth", "esrgan": "models/checkpoints/my_sr.pth"}


def config_of(**runtime) -> PipelineConfig:
    enhancers = {
        "ddcolor": {"size": "tiny", "input_px": 64, "weights": PATHS["ddcolor"]},
        "esrgan": {"arch": "srvgg", "size": "tiny", "scale": 2, "weights": PATHS["esrgan"]},
    }
    return PipelineConfig.model_validate(
        {"runtime": {"device": "cpu", **runtime}, "train_enhancers": enhancers}
    )


@pytest.mark.parametrize(
    ("name", "make", "load"),
    [
        ("ddcolor", lambda: DDColor(SIZES["tiny"]), load_colouriser),
        ("esrgan", lambda: build_esrgan("srvgg", "tiny", 2), load_super_resolver),
    ],
)
def test_a_foreign_enhancer_loads_after_import_alone(workspace, name, make, load):
    path = workspace.root / PATHS[name]
    path.parent.mkdir(parents=True)
    torch.save({"params": make().state_dict()}, path)
    with pytest.raises(WeightsError, match="agetf models import"):
        load(config_of(), workspace)
    assert load(config_of(allow_unverified_weights=True), workspace)
    import_path(path, workspace, Catalogue(checkpoints={}), name="mine")
    assert load(config_of(), workspace)
    torch.save({"params": make().state_dict(), "more": 1}, path)
    with pytest.raises(WeightsError, match="changed since"):
        load(config_of(), workspace)


def test_a_damaged_published_enhancer_is_refused_by_name(workspace):
    path = workspace.root / "models" / "checkpoints" / "RealESRGAN_x4plus.pth"
    path.parent.mkdir(parents=True)
    torch.save({"params": build_esrgan("srvgg", "tiny", 2).state_dict()}, path)
    config = config_of()
    esrgan = config.train_enhancers.esrgan.model_copy(update={"weights": path})
    enhancers = config.train_enhancers.model_copy(update={"esrgan": esrgan})
    config = config.model_copy(update={"train_enhancers": enhancers})
    with pytest.raises(WeightsError, match="agetf models fetch realesrgan-x4plus"):
        load_super_resolver(config, workspace)


def test_given_evaluators_without_a_card_are_refused(workspace, tmp_path):
    path = tmp_path / "foreign.safetensors"
    save_weights(path, torch.nn.Linear(2, 2), {})
    settings = {"age_estimator_weights": path, "identity_embedder_weights": path}
    config = PipelineConfig.model_validate({"train_evaluators": settings})
    with pytest.raises(WeightsError, match="carries no card"):
        train_evaluators.run(config, workspace)


class Opaque:
    def __reduce__(self):
        return (print, ("this must not be printed",))


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        (argparse.Namespace(lr=1), r"argparse\.Namespace"),
        (np.float64(95.0), "numpy"),
        (Opaque(), "only code of its own"),
    ],
)
def test_objects_in_a_pytorch_file_are_named_and_not_made(tmp_path, capsys, extra, named):
    path = tmp_path / "mivolo.pth.tar"
    torch.save({"state_dict": {}, "max_age": extra}, path)
    with pytest.raises(WeightsError, match=named) as refused:
        read_state(path)
    assert "Code of a file is never run" in str(refused.value)
    assert capsys.readouterr().out == ""
