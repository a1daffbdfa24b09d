"""The app: its tabs on one page, served to this machine alone."""

import importlib
import importlib.util
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from agetf_pipeline.core.errors import ConfigError
from agetf_pipeline.demo.services import Services
from agetf_pipeline.demo.theme import CSS, HEAD, theme

if TYPE_CHECKING:
    import gradio as gr

_TABS: tuple[tuple[str, str], ...] = (
    ("Ten ages", "ageing_tab"),
    ("Age estimation", "estimation_tab"),
    ("Doubtful labels", "labels_tab"),
)
_MAX_BYTES = 64_000_000
_SWEEP_S = (600, 3600)
"""How often files of requests are looked for, and how old they get, in seconds."""


def require_gradio(folder: Path) -> None:
    """Import Gradio, set so that it calls nobody and keeps its files in `folder`.

    Raises:
        ConfigError: It is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "Expected Gradio for the demo in the browser; found that it is not installed. "
            "Install it: pip install 'agetf-pipeline[app]'."
        ) from error


def build_app(services: Services) -> "gr.Blocks":
    """Return the page with its tabs."""
    import gradio as gr

    with gr.Blocks(
        title="AGETF: a face at every age", analytics_enabled=False, delete_cache=_SWEEP_S
    ) as app:
        gr.Markdown("# AGETF\nA face at every age, what age it looks, and which labels to doubt.")
        with gr.Tabs():
            for name, module in _TABS:
                if importlib.util.find_spec(f"agetf_pipeline.demo.{module}") is None:
                    continue
                with gr.Tab(name):
                    importlib.import_module(f"agetf_pipeline.demo.{module}").add_tab(services)
    return app


def launch(
    services: Services, port: int, say: Callable[[str], None], open_browser: bool = True
) -> None:
    """Serve the app on 127.0.0.1 until the process is told to end (Ctrl-C, SIGTERM).

    Raises:
        ConfigError: The port is taken.
    """
    app = build_app(services)
    told = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: told.set())
    try:
        app.launch(
            server_name="127.0.0.1", server_port=port, share=False, inbrowser=open_browser,
            prevent_thread_lock=True, quiet=True, max_file_size=_MAX_BYTES, ssr_mode=False,
            footer_links=[], enable_monitoring=False, mcp_server=False, run_history=False,
            state_session_capacity=32, theme=theme(), css=CSS, head=HEAD,
        )  # fmt: skip
    except OSError as error:
        raise ConfigError(
            f"Expected port {port} of 127.0.0.1 to be free; found: {error}. Give another --port."
        ) from error
    say(f"The demo is at http://127.0.0.1:{port} (Ctrl-C ends it).")
    told.wait()
    app.close(verbose=False)
