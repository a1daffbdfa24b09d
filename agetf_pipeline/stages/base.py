"""What every stage shares: its report, and skipping work whose fingerprint has not changed.

Both stand in `core.work`: training starts without a stage too, by `torchrun`.
"""

from agetf_pipeline.core.work import StageReport, load_report, report_path, run_once

__all__ = ["StageReport", "load_report", "report_path", "run_once"]
