#!/usr/bin/env bash
# Makes .venv from requirements.lock with uv; `setup.sh VERSION lock` resolves the lock again.
# Called by the Makefile and by the Dockerfiles. Needs Python 3.11 or 3.12 on Linux, nothing else.
set -euo pipefail
uv_version=$1
task=${2:-sync}
cd "$(dirname "$0")/.."

fits() {
  "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' >/dev/null 2>&1
}

python=""
for candidate in "${PYTHON:-}" python3.11 python3.12 python3 python; do
  if [ -n "$candidate" ] && fits "$candidate"; then
    python=$candidate
    break
  fi
done
if [ -z "$python" ]; then
  echo "Expected Python 3.11 or 3.12; found none on PATH. Install one, or name it: PYTHON=/path/to/python3.12 make ..." >&2
  exit 1
fi

if command -v uv >/dev/null 2>&1 && [ "$(uv --version | cut -d' ' -f2)" = "$uv_version" ]; then
  uv=uv
else
  uv=.uv/bin/uv
  if [ "$("$uv" --version 2>/dev/null | cut -d' ' -f2)" != "$uv_version" ]; then
    echo "Installing uv $uv_version into .uv"
    rm -rf .uv
    if ! "$python" -m venv .uv; then
      echo "Expected '$python -m venv' to work; on Debian and Ubuntu: apt-get install python3-venv" >&2
      exit 1
    fi
    .uv/bin/python -m pip install --quiet --disable-pip-version-check "uv==$uv_version"
  fi
fi

if [ "$task" = lock ]; then
  resolve() {
    "$uv" pip compile "$@" --universal --python-version 3.11 \
      --generate-hashes --no-emit-index-url --no-header --quiet
  }
  resolve pyproject.toml --extra app --group dev --group deployment --group docs \
    --group notebooks -o requirements.lock
  # The images without PyTorch: the same versions, fewer packages.
  for name in dagster-server mlflow-server; do
    resolve --group "$name" --constraints requirements.lock -o "docker/requirements-$name.lock"
  done
  exit 0
fi

if [ ! -x .venv/bin/python ] || ! fits .venv/bin/python; then
  "$uv" venv --clear --quiet --python "$("$python" -c 'import sys; print(sys.executable)')" .venv
fi
echo "Installing what requirements.lock names (several GB, once)"
# Compiled once here: every process that starts later loads it in half the time, also where Python is
# told not to write what it compiles.
"$uv" pip sync --quiet --compile-bytecode --require-hashes --python .venv requirements.lock
"$uv" pip install --quiet --python .venv --no-deps --no-build-isolation -e .
