#!/bin/sh
# The code location's container, with runs as its processes: those of a former container are dead.
# Not for Kubernetes, where a run has a pod of its own that outlives this one.
set -eu
python -m jobs.stale_runs --new-code-server
exec dagster code-server start "$@"
