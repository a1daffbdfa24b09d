"""Pages that we write: names and captions from outside stay text."""

import re
from pathlib import Path

import agetf_pipeline

PACKAGE = Path(agetf_pipeline.__file__).parent
TEMPLATES = sorted(PACKAGE.rglob("*.j2"))


def test_every_template_is_rendered_with_escaping_and_switches_none_off():
    assert [path.name for path in TEMPLATES if path.name.endswith(".html.j2")]
    for path in TEMPLATES:
        text = path.read_text()
        assert not re.search(r"\|\s*safe\b|autoescape\s+false|\bMarkup\b", text), path
    renderers = [
        source
        for source in PACKAGE.rglob("*.py")
        if re.search(r"\bEnvironment\(", source.read_text())
    ]
    assert len(renderers) >= 3
    for source in renderers:
        assert re.search(r"autoescape=(True|select_autoescape\()", source.read_text()), source


def test_the_way_that_templates_are_chosen_escapes_ours():
    """`select_autoescape` goes by the end of the name, and is silent where that does not fit."""
    from jinja2 import select_autoescape

    chooses = select_autoescape(enabled_extensions=("html.j2",))
    html = [path.name for path in TEMPLATES if ".html" in path.name]
    assert all(chooses(name) for name in html)


def test_no_page_is_put_together_without_a_template():
    """A tag written by an f-string would carry whatever it is given."""
    tag = re.compile(r"""f["'][^"'\n]*<(?:a|td|tr|p|div|span|img|script|li|h\d)\b[^"'\n]*\{""")
    application = [PACKAGE.parent / name for name in ("assets", "jobs", "resources")]
    sources = [path for folder in (PACKAGE, *application) for path in folder.rglob("*.py")]
    assert not [path for path in sources if tag.search(path.read_text())]
