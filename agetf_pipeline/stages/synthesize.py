"""Write a synthetic corpus in the layouts of FFHQ-Aging and CAF, with its truth beside it."""

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.locks import exclusive_lock
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.stages.base import StageReport, run_once

STAGE = "synthesize"
CODE_VERSION = "1"


def run(config: PipelineConfig, workspace: Workspace) -> StageReport:
    """Write the corpus that `config.synthesize` describes; do nothing where it is not enabled.

    Raises:
        StageError: The corpus folders hold photographs that did not come from here.
    """
    settings = config.synthesize
    if not settings.enabled:
        return StageReport(
            STAGE,
            status="skipped",
            messages=["synthesize.enabled is false: the corpora are the photographs you supply."],
        )
    from agetf_pipeline.synthetic import corpus

    def work() -> StageReport:
        with exclusive_lock(workspace.state / "locks" / "synthesize.lock", STAGE):
            written = corpus.write_corpus(settings, workspace)
        return StageReport(
            STAGE,
            counts={
                "ffhq_images": written.num_ffhq_images,
                "caf_images": written.num_caf_images,
                "degraded": written.num_degraded,
                "drawn_now": written.num_drawn,
            },
            outputs=written.outputs,
        )

    return run_once(
        workspace,
        STAGE,
        settings.settings(),
        f"{CODE_VERSION}-{corpus.CODE_VERSION}",
        {},
        work,
    )
