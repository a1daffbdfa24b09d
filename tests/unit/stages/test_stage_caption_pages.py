"""What the caption stage shows: its page, sheet and examples, their figures, and Dagster's view."""

from pathlib import Path

import pytest
from captioned_shard import PARTITION, make_config, make_workspace

from agetf_pipeline.captions import captioner
from agetf_pipeline.core.errors import StageError
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.experts.janus_writing import Written
from agetf_pipeline.stages import caption
from assets.showing import report_metadata

NUM_IMAGES = 4
PAGES = ("page", "sheet", "examples")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_workspace(tmp_path_factory.mktemp("captions"), NUM_IMAGES)


@pytest.fixture
def workspace(trained: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A copy to write in, with a network that always says the same."""
    import shutil

    def write(_: object, prompts, *__: object) -> list[Written]:
        return [Written("A young man with a beard.", True)] * len(prompts)

    shutil.copytree(trained.root, tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr(captioner, "write_greedily", write)
    return Workspace(tmp_path)


def test_the_page_of_a_partition_is_an_output_made_again_when_lost(workspace: Workspace) -> None:
    report = caption.run(make_config(), workspace, PARTITION)
    files = {name: workspace.resolve(report.outputs[name]) for name in PAGES}
    folder = workspace.stats / "captions" / PARTITION
    assert [path.relative_to(folder).name for path in files.values()] == [
        "page.html", "sheet.jpg", "examples.csv",
    ]  # fmt: skip
    page = files["page"].read_text(encoding="utf-8")
    assert page.count("<article") == NUM_IMAGES
    assert "<del>young</del>" in page
    assert "drawn (synthetic) faces" in page  # what the weights were trained on
    before = {name: path.read_bytes() for name, path in files.items()}
    files["page"].unlink()
    again = caption.run(make_config(), workspace, PARTITION)
    assert (again.status, again.counts["num_computed"]) == ("ran", 0)
    assert {name: path.read_bytes() for name, path in files.items()} == before
    few = caption.run(make_config(num_examples=2), workspace, PARTITION)
    assert few.counts["num_computed"] == 0
    assert files["page"].read_text(encoding="utf-8").count("<article") == 2


def test_a_stage_that_stops_leaves_a_page_to_see_why(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(_: object, prompts, *__: object) -> list[Written]:
        return [Written("She is 45.", True)] * len(prompts)

    monkeypatch.setattr(captioner, "write_greedily", write)
    with pytest.raises(StageError):
        caption.run(make_config(max_failed_fraction=0.5), workspace, PARTITION)
    page = workspace.stats / "captions" / PARTITION / "page.html"
    assert "nothing but words of age" in page.read_text(encoding="utf-8")


def test_dagster_shows_pictures_and_what_was_removed(workspace: Workspace) -> None:
    report = caption.run(make_config(), workspace, PARTITION)
    metadata = report_metadata(report, workspace)
    assert metadata["file_page"].path.endswith(f"stats/captions/{PARTITION}/page.html")
    assert metadata["picture_sheet"].md_str.startswith("![sheet.jpg](data:image/jpeg;base64,")
    records = [record.data for record in metadata["table_examples"].records]
    assert len(records) == NUM_IMAGES
    assert {record["removed"] for record in records} == {"young"}
    assert {record["raw_caption"] for record in records} == {"A young man with a beard."}
    assert metadata["num_age_words"] == 0
    assert metadata["changed_fraction"] == 1
