"""After how long the labels and the model are shown as not made anew."""

from datetime import timedelta

import dagster as dg

# Labelled every Sunday: a week missed warns, two fail.
LABELS = dg.FreshnessPolicy.time_window(
    fail_window=timedelta(days=15), warn_window=timedelta(days=8)
)
# Trained when a person decides so; the faces that arrive meanwhile are not in it.
MODEL = dg.FreshnessPolicy.time_window(
    fail_window=timedelta(days=180), warn_window=timedelta(days=90)
)
