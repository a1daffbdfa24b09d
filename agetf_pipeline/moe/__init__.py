"""The mixture of experts: gate, calibration, conformal intervals, decisions, report."""
