"""Reading embeddings by image: look-ups, several files, several processes."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from torch.utils.data import DataLoader, Dataset

from agetf_pipeline.captions.cache import EmbeddingStore, index_path, open_embeddings
from agetf_pipeline.captions.versions import (
    CaptionVersion,
    Request,
    record_version,
    recorded_version,
)
from agetf_pipeline.core.errors import DataError
from agetf_pipeline.core.hashing import hash_bytes
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.schemas import CAPTIONS
from agetf_pipeline.data.tables import table_path, to_frame, write_table

VERSION = CaptionVersion("model", "prompt")
WIDTH = 6


def _ids(start: int, stop: int) -> list[str]:
    return sorted(hash_bytes(str(number).encode()) for number in range(start, stop))


def _vector(image_id: str, kind: str, width: int = WIDTH) -> np.ndarray:
    seed = int(image_id[:12], 16) + (kind == "text")
    return np.random.default_rng(seed).normal(size=width).astype(np.float16)


def _write(
    workspace: Workspace,
    partition: str,
    image_ids: list[str],
    without: tuple[str, ...] = (),
    wordless: tuple[str, ...] = (),
    width: int = WIDTH,
    versions: tuple[CaptionVersion, ...] = (VERSION,),
) -> None:
    rows = []
    for image_id in image_ids:
        for version in versions:
            row = dict.fromkeys(CAPTIONS.schema.names)
            row |= {"image_id": image_id, "model_version": version.model_version}
            row |= {"prompt_hash": version.prompt_hash, "prompt": "?", "status": "ok"}
            if image_id not in without:
                row["image_embedding"] = _vector(image_id, "image", width)
                if image_id not in wordless:
                    row["text_embedding"] = _vector(image_id, "text", width)
            rows.append(row)
    write_table(workspace, CAPTIONS, partition, to_frame(rows, CAPTIONS))


def test_any_image_of_any_partition_is_found(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    first, second = _ids(0, 300), _ids(300, 420)
    _write(workspace, "ffhq_aging", first, versions=(VERSION, CaptionVersion("model", "other")))
    _write(workspace, "caf/shard-0000", second)
    store = open_embeddings(workspace, VERSION)
    assert (len(store), store.width) == (420, WIDTH)
    mixed = [*second[::-3], *first[::7], second[0], second[0]]
    for kind in ("image", "text"):
        expected = np.stack([_vector(image_id, kind) for image_id in mixed])
        np.testing.assert_array_equal(store.of(mixed, kind), expected)
    assert first[0] in store
    assert "unknown" not in store
    with pytest.raises(DataError, match=r"1 have none.*stage `caption`"):
        store.of([first[0], "unknown"])


def test_what_is_missing_is_nan_and_never_another_images(tmp_path: Path) -> None:
    workspace, ids = Workspace(tmp_path), _ids(0, 9)
    _write(workspace, "ffhq_aging", ids, without=(ids[4],), wordless=(ids[2], ids[5]))
    store = open_embeddings(workspace, VERSION)
    rows = store.rows([*ids, "unknown"])
    assert (rows < 0).tolist() == [
        image_id in (ids[4], "unknown") for image_id in [*ids, "unknown"]
    ]
    image, text = store.take(rows), store.take(rows, "text")
    assert np.isnan(image).all(axis=1).tolist() == (rows < 0).tolist()
    absent = [place for place in range(10) if np.isnan(text[place]).all()]
    assert absent == [2, 4, 5, 9]
    np.testing.assert_array_equal(text[6], _vector(ids[6], "text"))


def test_large_tables_span_batches(tmp_path: Path) -> None:
    workspace, ids = Workspace(tmp_path), _ids(0, 50)
    _write(workspace, "ffhq_aging", ids)
    path = table_path(workspace, CAPTIONS, "ffhq_aging")
    import pyarrow.parquet as pq

    pq.write_table(pq.read_table(path), path, row_group_size=7)
    store = open_embeddings(workspace, VERSION)
    np.testing.assert_array_equal(
        store.of(ids[::-1]), np.stack([_vector(image_id, "image") for image_id in ids[::-1]])
    )


class _Reader(Dataset):
    def __init__(self, store: EmbeddingStore, image_ids: list[str]) -> None:
        self.store, self.image_ids = store, image_ids

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.store.of([self.image_ids[index]])[0]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_worker_processes_read_the_same(tmp_path: Path, method: str) -> None:
    workspace, ids = Workspace(tmp_path), _ids(0, 12)
    _write(workspace, "ffhq_aging", ids)
    store = open_embeddings(workspace, VERSION)
    loader = DataLoader(
        _Reader(store, ids), batch_size=4, num_workers=1, multiprocessing_context=method
    )
    read = np.concatenate([batch.numpy() for batch in loader])
    np.testing.assert_array_equal(read, store.of(ids))
    assert len(pickle.dumps(store)) < 1000  # the files' names, not what is in them


def test_an_index_follows_its_table(tmp_path: Path) -> None:
    workspace, ids = Workspace(tmp_path), _ids(0, 6)
    _write(workspace, "ffhq_aging", ids[:4])
    assert len(open_embeddings(workspace, VERSION)) == 4
    path = index_path(workspace, "ffhq_aging", VERSION)
    stamp = path.stat().st_mtime_ns
    open_embeddings(workspace, VERSION)
    assert path.stat().st_mtime_ns == stamp
    _write(workspace, "ffhq_aging", ids)
    assert len(open_embeddings(workspace, VERSION)) == 6
    _write(workspace, "ffhq_aging", [])
    assert len(open_embeddings(workspace, VERSION)) == 0
    assert not path.exists()


def test_embeddings_of_two_widths_are_refused(tmp_path: Path) -> None:
    workspace, ids = Workspace(tmp_path), _ids(0, 6)
    _write(workspace, "ffhq_aging", ids[:3])
    _write(workspace, "caf/shard-0000", ids[3:], width=4)
    with pytest.raises(DataError, match=r"one width; found \[4, 6\]"):
        open_embeddings(workspace, VERSION)


def test_the_version_in_use_is_recorded(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    assert recorded_version(workspace) is None
    record_version(workspace, VERSION, Request("Describe.", 8))
    assert recorded_version(workspace) == VERSION
    next(tmp_path.rglob("current.json")).write_text("{}")
    with pytest.raises(DataError, match="stage `caption`"):
        recorded_version(workspace)
