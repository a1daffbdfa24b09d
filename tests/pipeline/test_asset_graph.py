"""The asset graph as a snapshot: a change of keys, dependencies, pools or checks is a decision."""

import json
import subprocess
import sys
from pathlib import Path

from dagster import AssetKey

REPOSITORY = Path(__file__).resolve().parents[2]
SNAPSHOT = Path(__file__).parent / "asset_graph.json"


def describe_graph() -> dict:
    from definitions import defs

    graph = defs.resolve_asset_graph()
    assets = {}
    for key in graph.toposorted_asset_keys:
        node = graph.get(key)
        partitions = node.partitions_def
        assets[key.to_user_string()] = {
            "deps": sorted(parent.to_user_string() for parent in node.parent_keys),
            "group": node.group_name,
            "pools": sorted(node.pools or []),
            "kinds": sorted(node.kinds),
            "partitions": None if partitions is None else partitions.name,
            "checks": sorted(check.name for check in node.check_keys),
        }
    return assets


def test_the_asset_graph_is_the_one_that_was_decided():
    found = describe_graph()
    assert found == json.loads(SNAPSHOT.read_text()), (
        "The asset graph changed. If that is meant: "
        "python tests/pipeline/test_asset_graph.py writes the snapshot again."
    )


def test_every_asset_says_what_it_is_and_costs():
    from definitions import defs

    for spec in defs.resolve_all_asset_specs():
        assert spec.description
        assert len(spec.description) > 150
        assert "**Made by** the stage" in spec.description
        assert "**Cost:**" in spec.description
        assert spec.owners
        assert spec.code_version


def test_every_step_that_is_read_has_a_check():
    found = describe_graph()
    without = {name for name, asset in found.items() if not asset["checks"]}
    # What the corpus is worth is judged where it is read.
    assert without == {"synthetic_corpus"}


def test_the_groups_read_from_left_to_right():
    from assets.running import GROUPS

    found = describe_graph()
    assert {asset["group"] for asset in found.values()} == set(GROUPS)
    for name, asset in found.items():
        for parent in asset["deps"]:
            place, before = GROUPS.index(asset["group"]), GROUPS.index(found[parent]["group"])
            assert before <= place, f"{name} reads {parent}, which is drawn to its right"


def test_the_graph_starts_at_the_corpus_and_ends_at_the_release():
    from definitions import defs

    graph = defs.resolve_asset_graph()
    assert graph.get(AssetKey("synthetic_corpus")).parent_keys == set()
    assert graph.get(AssetKey("release_files")).child_keys == set()


def test_loading_the_code_location_imports_nothing_heavy():
    code = (
        "import sys, definitions; "
        "heavy = {'torch', 'transformers', 'timm', 'mlflow', 'great_expectations', 'matplotlib'}; "
        "found = heavy & set(sys.modules); assert not found, found"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=REPOSITORY, check=True)


def test_the_library_does_not_import_dagster():
    code = (
        "import importlib, sys; from agetf_pipeline.stages.names import STAGE_SUMMARIES; "
        "[importlib.import_module(f'agetf_pipeline.stages.{name}') for name in STAGE_SUMMARIES]; "
        "assert 'dagster' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=REPOSITORY, check=True)


def test_assets_resolves_inside_the_repository():
    import assets

    assert Path(assets.__file__).resolve().is_relative_to(REPOSITORY)


if __name__ == "__main__":
    sys.path.insert(0, str(REPOSITORY))
    SNAPSHOT.write_text(json.dumps(describe_graph(), indent=1, sort_keys=True) + "\n")
