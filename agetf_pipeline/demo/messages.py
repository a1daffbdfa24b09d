"""What a person at the app is told where something does not work."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from agetf_pipeline.core.errors import AgetfError, DataError

_LOGGER = logging.getLogger(__name__)


def message_for(error: Exception) -> str:
    """Return what a person is told of an error; of one that nobody foresaw, where to look."""
    if isinstance(error, AgetfError):
        return str(error)
    return (
        f"Something that was not foreseen: {type(error).__name__}. The terminal where the app "
        "runs says more."
    )


@contextmanager
def telling() -> Iterator[None]:
    """Turn what is raised inside into a message on the page.

    Raises:
        gradio.Error: With the message for a person.
    """
    import gradio as gr

    try:
        yield
    except gr.Error:
        raise
    except Exception as error:
        if not isinstance(error, AgetfError):
            _LOGGER.exception("The app met what nobody foresaw.")
        title = "This picture cannot be used" if isinstance(error, DataError) else "Not possible"
        raise gr.Error(message_for(error), title=title, print_exception=False) from error
