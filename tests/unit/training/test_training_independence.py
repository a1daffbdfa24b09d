"""What trains must not know what judges: the judges would no longer be outside."""

import ast
from pathlib import Path

import grimp
import pytest

import agetf_pipeline

ROOT = Path(agetf_pipeline.__file__).parent
TRAINING = [
    "agetf_pipeline.training", "agetf_pipeline.age_transformer", "agetf_pipeline.stages.train",
    "agetf_pipeline.stages.distill",
]  # fmt: skip


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    """Every import of the library, those inside functions too."""
    return grimp.build_graph("agetf_pipeline", cache_dir=None)


@pytest.mark.parametrize("name", TRAINING)
def test_nothing_that_trains_reaches_evaluation(graph, name):
    is_package = name.count(".") == 1
    reached = graph.find_upstream_modules(name, as_package=is_package)
    assert "agetf_pipeline.age_transformer.losses" in reached | graph.find_descendants(name)
    wrong = sorted(m for m in reached if m.startswith("agetf_pipeline.evaluation"))
    assert not wrong, [graph.find_shortest_chain(name, m) for m in wrong]


def test_nothing_that_trains_names_the_evaluators_weights_or_the_true_renderings():
    files = [*(ROOT / "training").rglob("*.py"), *(ROOT / "age_transformer").rglob("*.py")]
    assert len(files) > 20
    for path in [*files, ROOT / "stages" / "train.py", ROOT / "stages" / "distill.py"]:
        strings = {
            node.value
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        assert not [text for text in strings if "evaluators" in text], path
