"""`agetf pull` and `agetf publish`, and the job of Dagster that pulls."""

import shutil

import dagster as dg
import pytest
import yaml

from agetf_pipeline import cli
from agetf_pipeline.commands.storage import pull_folder, pull_sources, sources
from agetf_pipeline.config import load_config, workspace_of
from agetf_pipeline.core.errors import ConfigError, DataError, StageError, UnavailableError
from agetf_pipeline.data.corpora import discover_partitions
from agetf_pipeline.data.shards import scan_shards
from agetf_pipeline.release import publishing
from agetf_pipeline.release.publishing import push
from agetf_pipeline.stages import release
from resources.pipeline import CONFIG_VARIABLE, PipelineResource

MANIFEST = "path,subject,age\n0.png,ann,40\n"


class Project:
    """A config file over a workspace, and a share beside it."""

    def __init__(self, root) -> None:
        self.root, self.share = root, root / "share"
        self.config = root / "configs" / "mine.yaml"
        self.config.parent.mkdir()
        for name in ("s1", "s2"):
            self.put(f"caf/{name}/0.png", f"pixels of {name}")
            self.put(f"caf/{name}/manifest.csv", MANIFEST)
        self.put("faces/00000/00000.png", "face")
        self.write()

    def put(self, name: str, text: str) -> None:
        path = self.share / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def write(self, **sections) -> None:
        values = {
            "workspace": {"root": "work"},
            "synthesize": {"enabled": False},
            "ingest": {
                "caf": {"source_uri": f"file://{self.share}/caf/"},
                "ffhq_aging": {"source_uri": f"file://{self.share}/faces"},
            },
            "release": {"publish_uri": f"file://{self.share}/releases"},
        }
        self.config.write_text(yaml.safe_dump(values | sections))

    def load(self, *overrides):
        config = load_config(self.config, overrides)
        return config, workspace_of(config)

    def run(self, *arguments) -> int:
        return cli.main([*arguments, "--quiet", "--config", str(self.config)])


@pytest.fixture
def project(tmp_path) -> Project:
    return Project(tmp_path)


@pytest.fixture
def released(project):
    folder = project.root / "work" / "outputs" / "release" / "0.1.0"
    (folder / "images").mkdir(parents=True)
    (folder / "table.csv").write_text("a,b\n")
    (folder / "images" / "x y.png").write_bytes(b"pixels")
    release.write_checksums(folder)
    return folder


def test_pull_fills_what_ingest_reads(project, capsys):
    assert project.run("pull") == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.partition(" -> ")[2].partition(": ")[2] for line in printed] == [
        "1 new, 0 changed, 0 here already; 0.0 MB copied",
        "4 new, 0 changed, 0 here already; 0.0 MB copied",
    ]
    config, workspace = project.load()
    assert discover_partitions(config, workspace) == ["ffhq_aging", "caf/s1", "caf/s2"]
    assert {s.name: s.state for s in scan_shards(config, workspace)} == {
        "s1": "complete",
        "s2": "complete",
    }
    project.put("caf/s3/0.png", "still being copied")
    assert project.run("pull", "--only", "caf", "ingest.max_failed_fraction=0.3") == 0
    assert {s.name: s.state for s in scan_shards(config, workspace)}["s3"] == "incomplete"


def test_addresses_are_no_part_of_what_a_stage_depends_on(project):
    config, _ = project.load()
    other, _ = project.load("ingest.caf.source_uri=s3://b/x", "release.publish_uri=null")
    assert sources(config) != sources(other)
    assert config.settings() == other.settings()
    assert "publish_uri" not in config.release.settings()
    assert "source_uri" not in str(config.settings())


def test_only_folders_below_data_raw_are_filled(project):
    inside, _ = project.load("ingest.caf.path=work/data/raw/mine")
    assert pull_folder(inside, workspace_of(inside), "caf").name == "mine"
    for path in ("photographs", "work/data", "work/data/raw/../../x", "/mnt/caf"):
        outside, workspace = project.load(f"ingest.caf.path={path}")
        with pytest.raises(ConfigError, match="only read"):
            pull_sources(outside, workspace, print)


def test_photographs_are_not_mixed_with_drawn_faces(project):
    drawing, workspace = project.load("synthesize.enabled=true")
    with pytest.raises(ConfigError, match="drawn faces"):
        pull_sources(drawing, workspace, print)
    workspace.truth.mkdir(parents=True)
    (workspace.truth / "corpus.json").write_text("{}")
    with pytest.raises(ConfigError, match="drawn faces"):
        pull_sources(*project.load(), print)


def test_a_corpus_that_fails_does_not_hold_the_other_up(project, capsys):
    shutil.rmtree(project.share / "faces")
    said: list[str] = []
    with pytest.raises(DataError, match="share/faces; found none"):
        pull_sources(*project.load(), said.append)
    assert said[0].startswith("caf: ")
    shutil.rmtree(project.share / "caf")
    assert project.run("pull") == 1
    printed = capsys.readouterr().err
    assert "share/faces; found none" in printed
    assert "share/caf; found none" in printed


def test_pull_without_a_source_says_where_to_set_one(project, capsys):
    project.write(ingest={})
    assert project.run("pull") == 1
    assert "ingest.<corpus>.source_uri" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("/mnt/faces", "expected a URI such as"),
        ("file://mnt/faces", "absolute path"),
        ("simplecache::s3://b/x", "expected a URI such as"),
        ("sftp://ann:secret@host/x", "without a password"),
    ],
)
def test_addresses_that_cannot_be_used(project, uri, said):
    with pytest.raises(ConfigError, match=said):
        project.load(f"ingest.caf.source_uri={uri}")


def test_addresses_with_an_at_sign_are_taken(project):
    config, _ = project.load("ingest.caf.source_uri=abfs://faces@account.dfs.core.windows.net/caf")
    assert sources(config)["caf"].startswith("abfs://faces@")


def test_publish_uploads_a_version_once(project, released, capsys):
    assert project.run("publish") == 0
    there = project.share / "releases" / "0.1.0"
    assert (there / "images" / "x y.png").read_bytes() == b"pixels"
    assert (there / release.CHECKSUMS).read_bytes() == (released / release.CHECKSUMS).read_bytes()
    times = {path: path.stat().st_mtime_ns for path in there.rglob("*")}
    assert project.run("publish") == 0
    assert "0 files uploaded (0.0 MB), 3 there already" in capsys.readouterr().out
    assert times == {path: path.stat().st_mtime_ns for path in there.rglob("*")}


def test_another_content_is_not_overwritten_unless_asked(project, released, capsys):
    project.run("publish")
    there = project.share / "releases" / "0.1.0"
    (released / "table.csv").write_text("c,d\n")  # the same size
    (released / "images" / "x y.png").unlink()
    release.write_checksums(released)
    assert project.run("publish") == 1
    assert "(table.csv, checksums.sha256)" in capsys.readouterr().err
    assert (there / "table.csv").read_text() == "a,b\n"
    assert project.run("publish", "--overwrite") == 0
    assert (there / "table.csv").read_text() == "c,d\n"
    assert "no part of this release: 1 (images/x y.png)" in capsys.readouterr().out


def test_an_interrupted_upload_has_no_checksums_and_goes_on(project, released, monkeypatch):
    uri, there = f"file://{project.share}/r", project.share / "r"
    upload = publishing._upload

    def failing(store, folder, name):
        if name == "table.csv":
            raise UnavailableError("connection reset")
        return upload(store, folder, name)

    monkeypatch.setattr(publishing, "_upload", failing)
    with pytest.raises(UnavailableError):
        push(released, uri)
    assert not (there / release.CHECKSUMS).exists()
    monkeypatch.undo()
    report = push(released, uri)
    assert (report.num_uploaded, report.num_kept) == (2, 1)


def test_replacing_takes_the_checksums_away_first(project, released, monkeypatch):
    uri, there = f"file://{project.share}/r", project.share / "r"
    push(released, uri)
    (released / "table.csv").write_text("c,d\n")
    release.write_checksums(released)

    def failing(store, folder, name):
        raise UnavailableError("connection reset")

    monkeypatch.setattr(publishing, "_upload", failing)
    with pytest.raises(UnavailableError):
        push(released, uri, overwrite=True)
    assert not (there / release.CHECKSUMS).exists()


def test_a_cut_upload_is_noticed(project, released, monkeypatch):
    there = project.share / "r"

    def cutting(store, folder, name):
        (there / name).parent.mkdir(parents=True, exist_ok=True)
        (there / name).write_bytes(b"")
        return True

    monkeypatch.setattr(publishing, "_upload", cutting)
    with pytest.raises(UnavailableError, match="found 0 bytes"):
        push(released, f"file://{there}")


@pytest.mark.parametrize("spoil", ["change", "add", "remove"])
def test_a_release_that_is_not_what_its_checksums_say_stays_here(project, released, spoil):
    if spoil == "change":
        (released / "table.csv").write_text("x,y\n")
    elif spoil == "add":
        (released / "private.csv").write_text("")
    else:
        (released / "table.csv").unlink()
    with pytest.raises(DataError, match="1 that differ"):
        push(released, f"file://{project.share}/r")
    assert not (project.share / "r").exists()


def test_publish_needs_a_release_and_an_address(project, capsys):
    assert project.run("publish") == 1
    assert "Run the stage release" in capsys.readouterr().err
    project.write(release={})
    assert project.run("publish") == 1
    assert "release.publish_uri" in capsys.readouterr().err


@pytest.fixture
def deployed(project, monkeypatch):
    monkeypatch.setenv(CONFIG_VARIABLE, str(project.config))
    return project


@pytest.mark.parametrize(
    "override",
    [
        "ingest.caf.source_uri=file:///etc",
        "ingest={caf: {source_uri: 'file:///etc'}}",
        "release.publish_uri=s3://elsewhere/x",
        "ingest.caf.source_uri=null",
    ],
)
def test_a_run_cannot_change_addresses(deployed, override):
    PipelineResource(overrides=["train.batch_size=2"]).load()
    with pytest.raises(ConfigError, match="found others"):
        PipelineResource(overrides=[override]).load()


def test_the_job_pulls_and_says_how_much(deployed):
    from jobs.storage import pull_sources_job

    result = pull_sources_job.execute_in_process(resources={"pipeline": PipelineResource()})
    (output,) = [e for e in result.all_events if e.is_successful_output]
    metadata = output.step_output_data.metadata
    assert metadata["caf/new"].value == 4
    assert metadata["ffhq_aging/refused"].value == 0
    assert pull_sources_job.tags["agetf/exclusive"] == "pull_sources"


def test_the_job_fails_readably(deployed):
    from jobs.storage import pull_sources_job

    shutil.rmtree(deployed.share)
    result = pull_sources_job.execute_in_process(
        resources={"pipeline": PipelineResource()}, raise_on_error=False
    )
    (failure,) = result.filter_events(lambda e: e.is_step_failure)
    assert "Mount the disk" in failure.step_failure_data.user_failure_data.description


def test_the_schedule_skips_without_a_source_and_while_a_pull_runs(deployed):
    from jobs.storage import PULL, quarter_hourly_pull

    assert quarter_hourly_pull.default_status == dg.DefaultScheduleStatus.STOPPED

    def tick(instance):
        context = dg.build_schedule_context(
            instance=instance, resources={"pipeline": PipelineResource()}
        )
        with context:
            return quarter_hourly_pull(context)

    with dg.instance_for_test() as instance:
        assert tick(instance).tags["agetf/trigger"] == "schedule"
        instance.add_run(
            dg.DagsterRun(job_name=PULL, run_id="1" * 36, status=dg.DagsterRunStatus.STARTED)
        )
        assert "is in progress" in tick(instance).skip_message
        deployed.write(ingest={})
        assert "source_uri" in tick(instance).skip_message


def test_errors_that_pass_stay_errors_that_pass(project, monkeypatch):
    def down(*args):
        raise UnavailableError("down")

    monkeypatch.setattr("agetf_pipeline.data.remote.pull", down)
    with pytest.raises(UnavailableError):
        pull_sources(*project.load(), print)
    shutil.rmtree(project.share / "caf")
    monkeypatch.undo()
    shutil.rmtree(project.share / "faces")
    with pytest.raises(StageError) as caught:
        pull_sources(*project.load(), print)
    assert type(caught.value) is StageError
