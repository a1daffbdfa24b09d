"""The Data Docs: a page per check and a list of all of them, static, without scripts or addresses.

Great Expectations has pages of its own. They load scripts, fonts and a logo from eight foreign
hosts, show shares instead of rows, and cannot print a NumPy number: see docs/quality.md.
"""

from pathlib import Path
from typing import Any

from agetf_pipeline.core.files import read_json, write_text
from agetf_pipeline.core.locks import exclusive_lock
from agetf_pipeline.core.workspace import Workspace

INDEX = "index.html"


def data_docs_folder(workspace: Workspace) -> Path:
    """Return the folder of the pages."""
    return workspace.stats / "quality" / "data_docs"


def write_data_docs(workspace: Workspace, check: str) -> Path:
    """Write the page of one check, `<asset>/<check>`, and the list of all checks.

    Returns:
        The check's page.
    """
    folder = data_docs_folder(workspace)
    stored = workspace.stats / "quality"
    page = folder / f"{check}.html"
    record = read_json(stored / f"{check}.json")
    # Checks of one run may end at the same time; each lists what all of them have written.
    with exclusive_lock(workspace.state / "locks" / "data_docs.lock", "the Data Docs"):
        write_text(page, _render("data_docs_check.html.j2", check=check, record=record))
        records = {
            path.relative_to(stored).with_suffix("").as_posix(): read_json(path)
            for path in sorted(stored.glob("*/*.json"))
        }
        write_text(folder / INDEX, _render("data_docs_index.html.j2", records=records))
    return page


def _render(name: str, **values: Any) -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(name).render(**values) + "\n"
