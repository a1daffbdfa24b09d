"""Weights that carry code: every loader refuses them, and none of it runs."""

import ast
import json
import pickle
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from captioned_shard import make_workspace as make_captioned
from malicious_files import MakesAFile, write_all

from agetf_pipeline.age_transformer.exporting import open_program
from agetf_pipeline.age_transformer.lpips import load_lpips
from agetf_pipeline.age_transformer.renderer import load_model
from agetf_pipeline.captions.token_grids import load_grid
from agetf_pipeline.checkpoints.catalogue import Catalogue
from agetf_pipeline.checkpoints.importing import import_path
from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.config.experts import ExpertConfig
from agetf_pipeline.core.errors import AgetfError, WeightsError
from agetf_pipeline.core.weights import read_card, read_state
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.enhance.identity import load_identity_model
from agetf_pipeline.enhance.load import load_colouriser, load_super_resolver
from agetf_pipeline.evaluation.attributes import load_attribute_reader
from agetf_pipeline.evaluation.embedders import load_embedder, tensors_digest
from agetf_pipeline.evaluation.inception import load_inception
from agetf_pipeline.evaluation.ir50 import read_published
from agetf_pipeline.evaluation.judges import IDENTITY_KIND, load_judge
from agetf_pipeline.experts import mivolo
from agetf_pipeline.experts.imagenet import load_initial_weights
from agetf_pipeline.experts.janus_files import load_folder
from agetf_pipeline.experts.load import load_expert

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCES = ("agetf_pipeline", "jobs", "assets", "resources", "docker", "benchmarks")
CPU = torch.device("cpu")


def config_with(path: Path) -> PipelineConfig:
    """Name a file wherever weights are asked for; nothing asks who vouches for it."""
    experts = {
        name: {"size": "tiny", "input_px": 32, "weights": path}
        for name in ("vgg16", "resnet50", "mivolo")
    }
    return PipelineConfig.model_validate(
        {
            "runtime": {"device": "cpu", "allow_unverified_weights": True},
            "train_experts": {"experts": experts},
            "train_enhancers": {
                "ddcolor": {"size": "tiny", "weights": path},
                "esrgan": {"arch": "srvgg", "size": "tiny", "scale": 2, "weights": path},
            },
        }
    )


def expert(name: str):
    return lambda path, root: load_expert(config_with(path), Workspace(root), name)


LOADERS = {
    "state": lambda path, root: read_state(path),
    "card": lambda path, root: read_card(path),
    "vgg16": expert("vgg16"),
    "resnet50": expert("resnet50"),
    "mivolo": expert("mivolo"),
    "published mivolo": lambda path, root: mivolo.read_published(path, "tiny"),
    "ddcolor": lambda path, root: load_colouriser(config_with(path), Workspace(root)),
    "esrgan": lambda path, root: load_super_resolver(config_with(path), Workspace(root)),
    "adaface": lambda path, root: read_published(path),
    "embedder": lambda path, root: load_embedder(path, CPU),
    "identity": lambda path, root: load_identity_model(path, CPU),
    "digest": lambda path, root: tensors_digest(path),
    "judge": lambda path, root: load_judge(path, IDENTITY_KIND, CPU),
    "attributes": lambda path, root: load_attribute_reader(path, CPU),
    "inception": lambda path, root: load_inception(path, CPU),
    "alexnet": lambda path, root: load_lpips(path),
    "imagenet": lambda path, root: load_initial_weights(
        torch.nn.Linear(2, 2), path, "vgg16", ExpertConfig(), ("head",)
    ),
    "renderer": lambda path, root: load_model(path),
    "program": lambda path, root: open_program(path, CPU),
}


@pytest.fixture(scope="module")
def malicious(tmp_path_factory) -> tuple[list[Path], Path]:
    folder = tmp_path_factory.mktemp("malicious")
    marker = folder / "the-code-ran"
    return write_all(folder / "files", marker), marker


def test_the_files_do_what_they_say_when_they_are_unpickled(malicious):
    files, marker = malicious
    (bare,) = [path for path in files if path.name == "bare.pt"]
    assert not marker.exists()
    pickle.loads(bare.read_bytes())["extra"].close()
    assert marker.exists()
    marker.unlink()


@pytest.mark.parametrize("loader", LOADERS)
def test_no_loader_runs_what_a_file_brings(loader, malicious, tmp_path):
    files, marker = malicious
    for path in files:
        with pytest.raises(WeightsError) as refused:
            LOADERS[loader](path, tmp_path)
        assert not marker.exists(), (loader, path.name)
        assert path.name in str(refused.value) or "card" in str(refused.value)


def test_importing_copies_and_does_not_load(malicious, tmp_path):
    files, marker = malicious
    for number, path in enumerate(files):
        with suppress(AgetfError):  # of a kind that is not imported at all
            import_path(path, Workspace(tmp_path), Catalogue(checkpoints={}), name=f"n{number}")
        assert not marker.exists(), path.name


def test_a_janus_folder_brings_no_code(malicious, tmp_path):
    """Neither a pickle in place of the safetensors, nor a module that its config names."""
    files, marker = malicious
    made = make_captioned(tmp_path / "made", 1).models / "experts" / "janus"
    folder = tmp_path / "janus"
    shutil.copytree(made, folder)
    (folder / "weights.safetensors").unlink()
    shutil.copyfile(files[0], folder / "pytorch_model.bin")
    with pytest.raises(WeightsError):
        load_folder(folder, "fp32")
    assert not marker.exists()
    for name in ("config.json", "tokenizer_config.json", "processor_config.json"):
        path = folder / name
        values = json.loads(path.read_text()) if path.exists() else {}
        values["auto_map"] = {
            "AutoConfig": "evil.Evil", "AutoModel": "evil.Evil", "AutoTokenizer": ["evil.Evil"] * 2,
            "AutoProcessor": "evil.Evil", "AutoImageProcessor": "evil.Evil",
        }  # fmt: skip
        path.write_text(json.dumps(values))
    (folder / "evil.py").write_text(f"open({str(marker)!r}, 'w')\nclass Evil: pass\n")
    with pytest.raises(WeightsError):
        load_folder(folder, "fp32")
    assert not marker.exists()


def test_an_array_of_objects_is_not_read(tmp_path):
    path = tmp_path / "grid.npy"
    np.save(path, np.array([MakesAFile(tmp_path / "ran")], dtype=object), allow_pickle=True)
    with pytest.raises(AgetfError):
        load_grid(Workspace(tmp_path), "grid.npy")
    assert not (tmp_path / "ran").exists()


def calls(tree: ast.AST) -> list[tuple[str, ast.Call]]:
    return [(ast.unparse(node.func), node) for node in ast.walk(tree) if isinstance(node, ast.Call)]


def keyword(call: ast.Call, name: str) -> object:
    for each in call.keywords:
        if each.arg == name:
            return getattr(each.value, "value", "an expression")
    return None


FORBIDDEN = {
    "eval", "exec", "compile", "os.system", "os.popen", "pickle.load", "pickle.loads",
    "pickle.Unpickler", "joblib.load", "dill.load", "cloudpickle.load", "marshal.loads",
    "shelve.open", "pd.read_pickle", "yaml.load", "yaml.full_load", "yaml.unsafe_load",
    "yaml.load_all", "torch.hub.load", "torch.jit.load", "tempfile.mktemp",
}  # fmt: skip


@pytest.mark.parametrize("source", SOURCES)
def test_no_source_calls_what_runs_data(source):
    """A call that unpickles, evaluates text or asks a shell fails here, not in a review."""
    found = []
    for path in sorted((REPOSITORY / source).rglob("*.py")):
        for name, call in calls(ast.parse(path.read_text(encoding="utf-8"))):
            where = f"{path.relative_to(REPOSITORY)}:{call.lineno} {name}"
            if name in FORBIDDEN and not name.startswith("re."):
                found.append(where)
            if name == "torch.load" and keyword(call, "weights_only") is not True:
                found.append(f"{where} without weights_only=True")
            if name == "np.load" and keyword(call, "allow_pickle") not in (None, False):
                found.append(f"{where} with pickles")
            if keyword(call, "shell") not in (None, False):
                found.append(f"{where} through a shell")
            if keyword(call, "trust_remote_code") not in (None, False):
                found.append(f"{where} with remote code")
            if name.endswith(".from_pretrained") and keyword(call, "local_files_only") is not True:
                found.append(f"{where} from the network")
            if name.endswith(".extractall") and keyword(call, "filter") != "data":
                found.append(f"{where} without filter='data'")
            if name.startswith(("torch.load", "np.load")) and keyword(call, "strict") is False:
                found.append(f"{where} not strictly")
    assert found == []
