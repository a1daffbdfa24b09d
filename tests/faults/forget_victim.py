"""What the children of the forgetting's kill test run; imported by the server they fork from."""

import os
import signal
from pathlib import Path

from forgotten_workspace import ANN, make_config

from agetf_pipeline.commands import forget as command  # noqa: F401 - loaded before the forks
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.upkeep.forget import forget

COUNT = "num_steps.txt"


def forget_ann(root: Path, number: int = 0) -> None:
    """Forget Ann and her originals; die at the n-th file that takes its place, or goes.

    Odd numbers die just before the step, even ones just after it. What a whole run takes is written
    down beside the workspace.
    """
    replace, unlink, seen = Path.replace, Path.unlink, 0

    def dying(step):
        def counted(*arguments, **options):
            nonlocal seen
            seen += 1
            if seen == number and number % 2:
                os.kill(os.getpid(), signal.SIGKILL)
            done = step(*arguments, **options)
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return done

        return counted

    Path.replace, Path.unlink = dying(replace), dying(unlink)  # type: ignore[method-assign]
    try:
        forget(make_config(root), Workspace(root), [ANN], subjects=True, delete_originals=True)
    finally:
        Path.replace, Path.unlink = replace, unlink  # type: ignore[method-assign]
    root.with_name(COUNT).write_text(str(seen))


def finish(root: Path) -> None:
    """Run again with nothing named, as `agetf forget` alone does."""
    forget(make_config(root), Workspace(root), [])
