"""Files that make another file when somebody unpickles them, in every form that weights come in."""

import io
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import torch


class MakesAFile:
    """Unpickled, it creates `marker`."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), "w")


def write_all(folder: Path, marker: Path) -> list[Path]:
    """Write one file of each form; the names say which."""
    folder.mkdir(parents=True, exist_ok=True)
    evil = MakesAFile(marker)
    state = {"state_dict": {"weight": torch.zeros(2)}, "params": {}, "extra": evil}
    pickled = pickle.dumps(state)
    files = {
        "zip.pth": lambda path: torch.save(state, path),
        "legacy.pth": lambda path: torch.save(
            state, path, _use_new_zipfile_serialization=False
        ),
        "bare.pt": lambda path: path.write_bytes(pickled),
        "bare.bin": lambda path: path.write_bytes(pickled),
        "tar.pth.tar": lambda path: _write_tar(path, pickled),
        "numpy.npz": lambda path: np.savez(path, a=np.array([evil], dtype=object)),
        "named.safetensors": lambda path: path.write_bytes(pickled),
        "zip_named.safetensors": lambda path: torch.save(state, path),
        "program.pt2": lambda path: _write_program(path, pickled),
    }  # fmt: skip
    for name, write in files.items():
        write(folder / name)
    return [folder / name for name in files]


def _write_tar(path: Path, pickled: bytes) -> None:
    """Write PyTorch's form of before 0.2: a tar of pickles."""
    with tarfile.open(path, "w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            member = tarfile.TarInfo(name)
            member.size = len(pickled)
            archive.addfile(member, io.BytesIO(pickled))


def _write_program(path: Path, pickled: bytes) -> None:
    """Write an archive as torch.export's, its constants and example inputs pickled."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/version", "6\n")
        archive.writestr("x/archive_format", "pt2")
        archive.writestr("x/models/model.json", "{}")
        archive.writestr("x/extra/card.json", '{"model": {}, "kind": "age_transformer"}')
        for name in ("data/constants/model.pt", "data/sample_inputs/model.pt"):
            archive.writestr(f"x/{name}", pickled)
