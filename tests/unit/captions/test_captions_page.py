"""The page of captions: whole without a network, safe whatever is written, the same bytes."""

from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from agetf_pipeline.captions.audit import audit_captions
from agetf_pipeline.captions.changes import changes, removed_words, visible
from agetf_pipeline.captions.examples import choose, read_examples, write_examples_csv
from agetf_pipeline.captions.page import Subject, write_page, write_sheet
from agetf_pipeline.captions.versions import CaptionVersion
from agetf_pipeline.config.caption import CaptionChecks
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.schemas import CAPTIONS, IMAGES
from agetf_pipeline.data.tables import to_frame, write_table

PARTITION, VERSION = "caf/shard-0000", CaptionVersion("model", "prompt")
HOSTILE = "</p><script>alert(1)</script><img src=x onerror='a'> \x1b[31m\u202e\" & a man"
VOID = {"meta", "img", "br"}


class Strict(HTMLParser):
    """Refuses tags that do not close in order; keeps tags, attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def make(root: Path, captions: dict[str, tuple[str | None, str | None]]) -> Workspace:
    """Write images and captions, raw and clean; the first image is gone, the second broken."""
    workspace, images, rows = Workspace(root), [], []
    for number, (name, (raw, clean)) in enumerate(captions.items()):
        path = workspace.raw_caf / "shard-0000" / f"{number}<u>&.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        if number == 1:
            path.write_bytes(b"no picture")
        elif number:
            Image.fromarray(np.full((300, 200, 3), 40 * number % 255, np.uint8)).save(path)
        image = dict.fromkeys(IMAGES.schema.names)
        image |= {"image_id": name, "partition": PARTITION, "path": workspace.relative(path)}
        image |= {"face_path": image["path"], "raw_name": path.name, "format": "PNG"}
        image |= {"mode": "RGB", "num_bytes": 1, "is_grey": False, "flags": []}
        image |= dict.fromkeys(
            ("stored_width_px", "stored_height_px", "width_px", "height_px"), 200
        )
        images.append(image)
        row = dict.fromkeys(CAPTIONS.schema.names)
        row |= {"image_id": name, "model_version": "model", "prompt_hash": "prompt"}
        row |= {"prompt": "?", "status": "ok" if clean else "failed", "raw_caption": raw}
        row |= {"caption": clean, "num_tokens": 3, "finished": True}
        rows.append({**row, "reason": None if clean else "<i>why</i>"})
    write_table(workspace, IMAGES, PARTITION, to_frame(images, IMAGES))
    write_table(workspace, CAPTIONS, PARTITION, to_frame(rows, CAPTIONS))
    return workspace


def page_of(workspace: Workspace, trained_on: str | None = "synthetic", name: str = "p") -> str:
    subject = Subject((PARTITION,), HOSTILE, VERSION, trained_on, True)
    audit = audit_captions(workspace, [PARTITION], VERSION, CaptionChecks())
    examples = read_examples(workspace, choose(audit.rows, 24))
    write_page(workspace.root / f"{name}.html", subject, audit, examples)
    write_sheet(workspace.root / f"{name}.jpg", subject, examples)
    write_examples_csv(workspace.root / f"{name}.csv", examples)
    return (workspace.root / f"{name}.html").read_text(encoding="utf-8")


CAPTIONS_OF = {
    "gone": (HOSTILE, HOSTILE),
    "broken": ("A young man with a hat.", "A man with a hat."),
    "c": ("A boy smiling.", "A man smiling."),
    "d": (None, None),
    "e": ("She is 45.", None),
    "f<u>": ("A woman with glasses.", "A woman with glasses."),
}


def test_the_page_is_well_formed_and_shows_hostile_words_as_words(tmp_path: Path) -> None:
    text = page_of(make(tmp_path, CAPTIONS_OF))
    page = Strict(text)
    assert not {"script", "u", "i", "link", "iframe"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    sources = [value or "" for name, value in page.attributes if name in {"src", "href"}]
    assert len(sources) == 4  # the other two are not there
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert "http" not in text
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "<script>alert(1)</script>" in page.text
    assert "the file is gone: data/raw/caf/shard-0000/0<u>&.png" in page.text
    assert "the file cannot be read" in page.text
    assert "No caption: <i>why</i>" in page.text
    assert "<del>young</del>" in text
    assert "<del>boy</del> <ins>man</ins>" in text


def test_the_page_says_loudly_what_the_network_is(tmp_path: Path) -> None:
    workspace = make(tmp_path, CAPTIONS_OF)
    assert "drawn (synthetic) faces" in page_of(workspace, "synthetic")
    assert "Random weights" in page_of(workspace, "random")
    assert "not recorded: trust" in page_of(workspace, None)
    assert 'class="loud"' not in page_of(workspace, "published")


def test_the_same_captions_give_the_same_bytes(tmp_path: Path) -> None:
    workspace = make(tmp_path, CAPTIONS_OF)
    page_of(workspace, name="first")
    page_of(workspace, name="second")
    for suffix in ("html", "jpg", "csv"):
        first, second = (tmp_path / f"{name}.{suffix}" for name in ("first", "second"))
        assert first.read_bytes() == second.read_bytes()
    table = pl.read_csv(tmp_path / "first.csv")
    assert dict(table.select("image_id", "removed").iter_rows())["c"] == "boy -> man"


def test_pictures_keep_their_shape(tmp_path: Path) -> None:
    workspace = make(tmp_path, CAPTIONS_OF)
    audit = audit_captions(workspace, [PARTITION], VERSION, CaptionChecks())
    shapes = {e.image_id: e.picture.shape for e in read_examples(workspace, audit.rows)
              if e.picture is not None}  # fmt: skip
    assert set(shapes.values()) == {(160, 107, 3)}


def test_a_choice_is_spread_fixed_and_may_begin_with_the_gravest(tmp_path: Path) -> None:
    names = [f"{n:04}" for n in range(300)]
    rows = pl.DataFrame(
        {"image_id": names, "flags": [["age_words", "cut"] if n == 299 else ["cut"] if n == 7
                                      else [] for n in range(300)]},
        schema_overrides={"flags": pl.List(pl.String)},
    )  # fmt: skip
    chosen = choose(rows, 30)["image_id"].to_list()
    assert chosen == choose(rows.reverse(), 30)["image_id"].to_list()
    assert max(chosen) > "0250"
    assert min(chosen) < "0050"
    assert choose(rows, 2, flagged=True)["image_id"].to_list() == ["0299", "0007"]
    assert choose(rows, 30, flagged=True).height == 30


@given(st.text(max_size=60), st.text(max_size=60) | st.none())
def test_pieces_of_a_caption_give_it_again(raw: str, clean: str | None) -> None:
    pieces = changes(raw, clean)
    assert "".join(piece.text for piece in pieces if piece.kind != "added") == raw


@pytest.mark.parametrize(
    ("raw", "clean", "said"),
    [
        ("An elderly man.", "A man.", "An elderly -> A"),
        ("Young woman. She is 45.", "Woman.", "Young; She is 45."),
        ("A man, in his teens, smiling.", "A man, smiling.", "in his teens,"),
        ("Same.", "Same.", ""),
        (None, None, ""),
    ],
)
def test_what_went_is_said_in_a_line(raw: str | None, clean: str | None, said: str) -> None:
    assert removed_words(raw, clean) == said


def test_control_characters_are_marked() -> None:
    assert visible("a\x1b[0m\u202eb é 男 \u200d") == "a\ufffd[0m\ufffdb é 男 \u200d"
