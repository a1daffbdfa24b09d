"""docs/configuration.md lists what the config models accept."""

from pathlib import Path

from agetf_pipeline.config.describe import describe

PAGE = Path(__file__).resolve().parents[3] / "docs" / "configuration.md"


def test_the_page_is_up_to_date():
    assert PAGE.read_text() == describe(), "Run: python -m agetf_pipeline.config.describe"
