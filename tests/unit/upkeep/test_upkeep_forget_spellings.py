"""Forgetting finds names however they are written and files wherever they lie, and no words."""

import json
import shutil
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from forgotten_workspace import (
    ANN,
    FIRST,
    copies,
    do,
    draw,
    id_of,
    make_config,
    make_workspace,
    read_all,
    traces,
    write_shard,
)

from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.csv_files import for_spreadsheets
from agetf_pipeline.data.forgotten import read_forgotten, unfinished
from agetf_pipeline.stages import ingest

ZOE, FORMULA, OBRIEN, SHORT = "Zoë Čapek", "=Ann", "O'Brien-Smith", "Ōé"
FILE = "data/raw/caf/third/Zoë-1.png"
STAYS = ("data/forgotten.json", "data/tables/quarantine/", "stats/quarantine/", "data/raw/")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    workspace = make_workspace(tmp_path_factory.mktemp("made") / "w")
    people = {"Zoë-1.png": (81, ZOE), "f.png": (82, FORMULA), "o.png": (83, OBRIEN)}
    people |= {"s.png": (84, SHORT), "a.png": (85, "A"), "demo.png": (86, "demo")}
    write_shard(workspace, "third", people | {"long.png": (87, "attention")})
    read_all(workspace)
    ingest.run(make_config(workspace.root), workspace, "caf/third")
    return workspace.root


@pytest.fixture
def workspace(made, tmp_path) -> Workspace:
    shutil.copytree(made, tmp_path / "w")
    return Workspace(tmp_path / "w")


def put(workspace: Workspace, name: str, text: str, encoding: str = "utf-8") -> Path:
    path = workspace.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding)
    return path


def left_of(workspace: Workspace, *words: str) -> list[str]:
    return [name for name in traces(workspace.root, list(words)) if not name.startswith(STAYS)]


def test_file_names_with_accents_go_from_every_kind_of_list(workspace):
    escaped = "data/raw/caf/third/Zo\\xc3\\xab-1.png"
    other = {"path": "data/raw/caf/first/ann-1.png"}
    for number, path in enumerate((FILE, escaped)):
        for ascii_only in (True, False):
            stem = f"outputs/x/{number}{ascii_only}"
            records = [{"path": path}, other]
            put(workspace, f"{stem}.json", json.dumps(records, ensure_ascii=ascii_only))
            keyed = {path: 1, "other": 2}
            put(workspace, f"{stem}-key.json", json.dumps(keyed, ensure_ascii=ascii_only))
            lines = [json.dumps(record, ensure_ascii=ascii_only) + "\n" for record in records]
            put(workspace, f"{stem}.jsonl", "".join(lines))
            page = f"<script>x = {json.dumps(path, ensure_ascii=ascii_only)}</script>"
            put(workspace, f"{stem}.html", page)
    put(workspace, "outputs/x/link.md", "![](data/raw/caf/third/Zo%C3%AB-1.png)")
    assert len(left_of(workspace, FILE, escaped)) > 10
    report = do(workspace, hash_file(workspace.root / FILE))
    assert report.left == []
    assert left_of(workspace, FILE, escaped) == []
    assert json.loads((workspace.root / "outputs/x/0True.json").read_text()) == [other]
    assert json.loads((workspace.root / "outputs/x/0True-key.json").read_text()) == {"other": 2}
    assert len((workspace.root / "outputs/x/1False.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize("name", [ZOE, FORMULA, OBRIEN, SHORT])
def test_a_name_goes_however_it_is_written(workspace, name):
    frame = pl.DataFrame({"Subject": [name, "Bob"], "age": [3, 4]})
    put(workspace, "stats/x.csv", "\ufeff" + for_spreadsheets(frame))
    put(workspace, "stats/X.CSV", frame.write_csv())
    put(workspace, "stats/x.tsv", frame.write_csv(separator="\t"))
    records = [{"subject": name, "n": 1}, {"subject": "Bob", "n": 2}]
    put(workspace, "stats/short.json", json.dumps(records, ensure_ascii=False))
    put(workspace, "stats/lines.jsonl", "".join(json.dumps(r) + "\n" for r in records))
    people = {"people": {name: 1, "Bob": 2}, "top": f"caf:{name}", "subjects": [name, "Bob"]}
    put(workspace, "stats/people.json", json.dumps(people))
    table = pa.table(
        {
            "subject": pa.array([name, "Bob"]).dictionary_encode(),
            "who": [{"identity": f"caf:{name}"}, {"identity": "caf:Bob"}],
        }
    )
    for columns in (["subject"], ["who"]):
        pq.write_table(table.select(columns), workspace.stats / f"{columns[0]}.parquet")
    if len(name) >= 8:
        escaped = name.replace("'", "&#39;")
        put(workspace, "outputs/page.html", f"<p>{escaped}</p>")
    report = do(workspace, name, subjects=True)
    assert report.left == []
    assert left_of(workspace, name) == []
    for suffix in ("x.csv", "X.CSV", "x.tsv"):
        assert "Bob" in (workspace.stats / suffix).read_text()
    assert (workspace.stats / "x.csv").read_text().startswith("\ufeffSubject")
    assert json.loads((workspace.stats / "people.json").read_text()) == {
        "people": {"Bob": 2}, "subjects": ["Bob"],
    }  # fmt: skip
    for kind in ("subject", "who"):
        assert pq.read_table(workspace.stats / f"{kind}.parquet").num_rows == 1


@pytest.mark.parametrize("name", ["A", "demo", "attention"])
def test_a_word_that_is_also_a_name_stays_in_networks_and_settings(workspace, name):
    kept = [
        put(workspace, "models/experts/x/tokenizer.json", f'{{"id": "{name}", "{name}": 1}}'),
        put(workspace, "models/experts/x/merges.txt", f"{name} b\n"),
        put(workspace, "models/a/checkpoints/images-1/state.json", f'{{"identity": "{name}"}}'),
        put(workspace, "mlruns/models/m-1/artifacts/config.json", f'{{"name": "{name}"}}'),
        put(workspace, "mlruns/1/artifacts/config/resolved.json", f'{{"run": "{name}"}}'),
        put(workspace, "data/.state/shards/caf.json", f'{{"config": "{name[:4]}"}}'),
    ]
    before = [path.read_bytes() for path in kept]
    assert do(workspace, name, subjects=True).left == []
    assert [path.read_bytes() for path in kept] == before
    records = put(workspace, "stats/r.json", json.dumps([{"metric": name[:4]}]))
    assert records.exists()


def test_copies_under_any_suffix_and_lists_of_any_kind_go(workspace):
    source = workspace.raw_caf / "first" / "bob.png"
    image_id = id_of(workspace, FIRST, "bob.png")
    for name in ("portrait", "bob.png.bak", "bob.jfif", "BOB.PNG", "weights.pt"):
        (workspace.root / "outputs/y").mkdir(exist_ok=True)
        shutil.copy(source, workspace.root / "outputs/y" / name)
    for name in ("ids.lst", "ids", "ids.tsv"):
        put(workspace, f"outputs/y/{name}", f"path\tid\nx\t{image_id}\n")
    kept = put(workspace, "outputs/y/other.lst", "nothing of it\n")
    assert do(workspace, image_id).left == []
    expected = ["data/raw/caf/first/bob.png"]
    assert copies(workspace.root, image_id) == expected
    assert [n for n in left_of(workspace, image_id) if "trained_on" not in n] == []
    assert kept.exists()


def test_copies_of_what_was_never_read_go_too(workspace, tmp_path):
    """Its size is in no table, so every file is compared."""
    sent = draw(tmp_path / "sent.png", 500)
    (workspace.root / "outputs/y").mkdir()
    shutil.copy(sent, workspace.root / "outputs/y/portrait")
    do(workspace, hash_file(sent))
    assert copies(workspace.root, hash_file(sent)) == []


def test_folders_behind_links_are_looked_through(workspace, tmp_path):
    image_id = id_of(workspace, FIRST, "bob.png")
    large = tmp_path / "large"
    shutil.move(workspace.root / "outputs" / "experiments", large)
    (workspace.root / "outputs" / "experiments").symlink_to(large)
    (large / "round").symlink_to(workspace.root / "outputs")
    assert do(workspace, image_id).left == []
    for path in (p for p in large.rglob("*") if p.is_file() and p.suffix == ".json"):
        assert image_id not in path.read_text()
    assert not (large / "run" / "grid.png").exists()
    assert image_id not in pl.read_parquet(large / "run" / "per_image.parquet")["image_id"]


def test_a_copy_outside_that_a_link_leads_to_is_named_and_stays(workspace, tmp_path):
    """It may be somebody's own folder of photographs: it is not deleted, and not passed over."""
    image_id = id_of(workspace, FIRST, "bob.png")
    theirs = tmp_path / "theirs" / "holiday.png"
    theirs.parent.mkdir()
    shutil.copy(workspace.raw_caf / "first" / "bob.png", theirs)
    (workspace.root / "outputs" / "view").symlink_to(theirs.parent)
    (finding,) = do(workspace, image_id).left
    assert (finding.severity, finding.where) == ("error", theirs.as_posix())
    assert theirs.exists()
    assert unfinished(read_forgotten(workspace))
    (workspace.root / "outputs" / "view").unlink()
    assert do(workspace).left == []


def test_links_to_originals_never_delete_originals(workspace, tmp_path):
    image_id = id_of(workspace, FIRST, "bob.png")
    shards = tmp_path / "shards"
    shutil.move(workspace.raw_caf / "first", shards / "first")
    (workspace.raw_caf / "first").symlink_to(shards / "first")
    (workspace.root / "outputs" / "corpus").symlink_to(workspace.raw_caf)
    (workspace.root / "outputs" / "mount").symlink_to(shards / "first")
    link = workspace.root / "outputs" / "best.png"
    link.symlink_to(shards / "first" / "bob.png")
    assert do(workspace, image_id).left == []
    assert (shards / "first" / "bob.png").exists()
    assert not link.is_symlink()


def test_a_damaged_list_stops_nobody(workspace):
    image_id = id_of(workspace, FIRST, "bob.png")
    long = "x" * 200_000
    stray = put(workspace, "stats/stray.csv", f'id,note\n1,"a\n{image_id},b\n2,{long}\n')
    broken = put(workspace, "outputs/broken.json", '{"a": ')
    assert do(workspace, image_id).left == []
    assert stray.read_text() == f'id,note\n1,"a\n2,{long}\n'
    assert broken.exists()


def test_many_images_are_found_by_halves(workspace):
    from agetf_pipeline.upkeep.forget_match import Target

    ids = frozenset(f"{number:064x}" for number in range(0, 2_000_000, 1000))
    target = Target(ids, frozenset(), frozenset(), pl.DataFrame(), frozenset())
    assert target.is_in(f"a {5000:064x} b")
    assert not target.is_in(f"a {5001:064x} b")
    assert target.is_in("0" * 58)
    assert not target.is_in(ANN)
