"""Great Expectations is loaded without what it does not need, and nobody else notices."""

import importlib
import sys

from agetf_pipeline.quality.loading import (
    OnFirstUse,
    imported_on_first_use,
    load_great_expectations,
)


def _forget(*names):
    return {name: sys.modules.pop(name) for name in names if name in sys.modules}


def test_a_module_comes_when_it_is_used():
    forgotten = _forget("colorsys", "wave")
    try:
        with imported_on_first_use("colorsys", "wave", "no_such_package"):
            import colorsys
            import wave

            assert isinstance(colorsys, OnFirstUse)
            assert isinstance(wave, OnFirstUse)
            assert "no_such_package" not in sys.modules
            assert colorsys.rgb_to_hsv(1.0, 1.0, 1.0) == (0.0, 0.0, 1.0)
            assert not isinstance(sys.modules["colorsys"], OnFirstUse)
        assert "wave" not in sys.modules
        assert wave.Error is importlib.import_module("wave").Error
        assert not isinstance(sys.modules["wave"], OnFirstUse)
    finally:
        sys.modules.update(forgotten)


def test_a_submodule_that_its_package_imports_lazily_is_free_afterwards():
    forgotten = _forget("xml.sax.saxutils")
    try:
        with imported_on_first_use("xml.sax.saxutils"):
            from xml.sax import saxutils

            assert isinstance(saxutils, OnFirstUse)
        import xml.sax

        assert not isinstance(vars(xml.sax).get("saxutils"), OnFirstUse)
        assert saxutils.escape("<") == "&lt;"
    finally:
        sys.modules.update(forgotten)


def test_loaded_modules_are_left_alone():
    before = sys.modules["json"]
    with imported_on_first_use("json"):
        assert sys.modules["json"] is before
    assert sys.modules["json"] is before


def test_great_expectations_leaves_nothing_behind():
    load_great_expectations()
    assert not [name for name, module in sys.modules.items() if isinstance(module, OnFirstUse)]
    for name in ("sqlalchemy", "google.oauth2"):
        assert sys.modules.get(name, sys) is not None
    from scipy import stats

    assert stats.norm.cdf(0.0) == 0.5
    kl = importlib.import_module(
        "great_expectations.expectations.core.expect_column_kl_divergence_to_be_less_than"
    )
    assert kl.stats.entropy is stats.entropy
