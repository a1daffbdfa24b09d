"""The index of who holds an image: always what the tables say, whatever became of it or them."""

import multiprocessing
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data import holdings
from agetf_pipeline.data.corpus_store import open_store
from agetf_pipeline.data.schemas import IMAGES
from agetf_pipeline.data.tables import table_path, to_frame, write_table


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    return Workspace(tmp_path)


def image_id(number: int) -> str:
    return f"{number * 0x9E3779B97F4A7C15 % 2**64:016x}".ljust(64, "0")


def write(workspace: Workspace, partition: str, numbers: range) -> None:
    constants = dict.fromkeys(IMAGES.schema.names) | {
        "partition": partition, "raw_name": "x", "format": "PNG", "mode": "RGB",
        "stored_width_px": 1, "stored_height_px": 1, "width_px": 1, "height_px": 1, "flags": [],
        "num_bytes": 1, "is_grey": False, "subject": "ann", "true_age_years": 20.3,
    }  # fmt: skip
    rows = [
        {**constants, "image_id": image_id(n), "path": f"{partition}/{n}", "face_path": "x"}
        for n in numbers
    ]
    write_table(workspace, IMAGES, partition, to_frame(rows, IMAGES))


def ask(workspace: Workspace, earlier: list[str], numbers: range) -> dict[str, str]:
    """Return each held image's path, as ingest would find them."""
    with open_store(workspace.state / "ingest", workspace.root) as store:
        store.run_many(
            "INSERT INTO contents VALUES (?, 'x')",
            ((bytes.fromhex(image_id(number)),) for number in numbers),
        )
        holdings.find_elsewhere(workspace, earlier, store)
        found = store.run("SELECT path, subject, age FROM elsewhere").fetchall()
    assert all(subject == "ann" and round(age, 4) == 20.3 for _, subject, age in found)
    return {path.rpartition("/")[2]: path for path, *_ in found}


def test_earlier_tables_alone_count_and_each_is_read_once(workspace, monkeypatch):
    for place in range(4):
        write(workspace, f"caf/s{place}", range(place * 10, place * 10 + 10))
    read = []
    take_in = holdings._take_in
    monkeypatch.setattr(
        holdings, "_take_in", lambda d, name, *more: (read.append(name), take_in(d, name, *more))[1]
    )
    earlier = ["caf/s0", "caf/s1"]
    assert set(ask(workspace, earlier, range(5, 25))) == {str(n) for n in range(5, 20)}
    assert read == earlier
    assert set(ask(workspace, [*earlier, "caf/s2", "caf/gone"], range(5, 25))) == {
        str(n) for n in range(5, 25)
    }
    assert read == [*earlier, "caf/s2"]
    assert ask(workspace, ["caf/s3"], range(5, 25)) == {}
    assert ask(workspace, [], range(5, 25)) == {}


def test_a_table_that_is_written_again_or_goes_is_noticed(workspace):
    write(workspace, "caf/a", range(10))
    assert len(ask(workspace, ["caf/a"], range(20))) == 10
    write(workspace, "caf/a", range(8, 14))
    assert set(ask(workspace, ["caf/a"], range(20))) == {str(n) for n in range(8, 14)}
    table_path(workspace, IMAGES, "caf/a").unlink()
    assert ask(workspace, ["caf/a"], range(20)) == {}
    write(workspace, "caf/a", range(3))
    assert set(ask(workspace, ["caf/a"], range(20))) == {"0", "1", "2"}


def test_what_nobody_asks_for_any_more_goes_in_the_end(workspace, monkeypatch):
    monkeypatch.setattr(holdings, "_LEAST_WASTE", 10)
    for _ in range(9):
        write(workspace, "caf/a", range(20))
        assert len(ask(workspace, ["caf/a"], range(20))) == 20
    with closing(sqlite3.connect(holdings.index_path(workspace))) as database:
        assert database.execute("SELECT COUNT(*) FROM held").fetchone()[0] <= 60


@pytest.mark.parametrize("damage", ["gone", "no database", "cut", "other tables"])
def test_a_damaged_index_is_made_anew(workspace, damage):
    write(workspace, "caf/a", range(3000))
    asked = range(2990, 3010)
    assert len(ask(workspace, ["caf/a"], asked)) == 10
    path = holdings.index_path(workspace)
    if damage == "gone":
        path.unlink()
    elif damage == "no database":
        path.write_bytes(b"scribble" * 1000)
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:5000])
    else:
        path.unlink()
        with closing(sqlite3.connect(path)) as database:
            database.execute("CREATE TABLE tables (x)")
    assert len(ask(workspace, ["caf/a"], asked)) == 10


def test_without_room_for_an_index_every_table_is_asked(workspace, monkeypatch):
    write(workspace, "caf/a", range(10))

    def refuse(_path):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(holdings, "_connect", refuse)
    assert set(ask(workspace, ["caf/a"], range(9, 12))) == {"9"}


def test_killed_while_a_table_is_taken_in_nothing_of_it_is_believed(workspace, monkeypatch):
    write(workspace, "caf/a", range(50))

    def die(_database):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(holdings, "_drop_waste", die)
        with pytest.raises(KeyboardInterrupt):
            ask(workspace, ["caf/a"], range(50))
    assert len(ask(workspace, ["caf/a"], range(60))) == 50


def _ask_in_process(root: Path, place: int, out) -> None:
    out.put(len(ask(Workspace(root), [f"caf/s{n}" for n in range(place)], range(100))))


def test_several_processes_ask_at_once(workspace):
    for place in range(5):
        write(workspace, f"caf/s{place}", range(place * 10, place * 10 + 10))
    context = multiprocessing.get_context("spawn")
    out = context.Queue()
    processes = [
        context.Process(target=_ask_in_process, args=(workspace.root, place, out))
        for place in (2, 3, 5)
    ]
    for process in processes:
        process.start()
    found = sorted(out.get(timeout=100) for _ in processes)
    for process in processes:
        process.join()
    assert found == [20, 30, 50]
