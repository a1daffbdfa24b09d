#!/usr/bin/env bash
# `make test-postgres`: what needs programs of Debian's packages, which are installed where they are
# absent. Renders the compose files, then runs the same processes by hand over a real PostgreSQL.
set -euo pipefail
cd "$(dirname "$0")/.."

need() { # need PACKAGE TEST...: installs PACKAGE unless TEST succeeds
  local package=$1
  shift
  if "$@" >/dev/null 2>&1; then
    return
  fi
  if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
    echo "Expected $package; found none, and installing it takes apt-get and root. Install it and run this again." >&2
    exit 1
  fi
  echo "Installing $package of Debian's packages"
  # A cluster of the distribution's own is not wanted: it would take a port.
  mkdir -p /etc/postgresql-common
  [ -e /etc/postgresql-common/createcluster.conf ] \
    || echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.conf
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install --yes -qq --no-install-recommends "$package" >/dev/null
}

has_postgres() {
  ls /usr/lib/postgresql/*/bin/initdb && command -v psql
}

has_compose() {
  docker compose version || command -v docker-compose
}

compose() {
  if docker compose version >/dev/null 2>&1; then
    docker compose "$@"
  else
    docker-compose "$@"
  fi
}

need postgresql has_postgres
need docker-compose has_compose

rendered=$(mktemp -d)
trap 'rm -rf "$rendered"' EXIT
sed 's/PASSWORD=$/PASSWORD=abc123/' docker/.env.example >"$rendered/env"
files=(-f docker/compose.yaml)
for name in cpu gpu; do
  compose --env-file "$rendered/env" "${files[@]}" config >"$rendered/$name.yaml"
  files+=(-f docker/compose.gpu.yaml)
done
.venv/bin/check-jsonschema --quiet --builtin-schema vendor.compose-spec "$rendered"/*.yaml
if env -u POSTGRES_PASSWORD -u DAGSTER_PG_PASSWORD -u MLFLOW_PG_PASSWORD \
  bash -c "$(declare -f compose); compose --env-file docker/.env.example -f docker/compose.yaml config" \
  >/dev/null 2>&1; then
  echo "FAILED: compose.yaml renders without passwords" >&2
  exit 1
fi
echo "compose files render, fit the specification, and are refused without passwords"

PYTHONPATH="$PWD:$PWD/tests/unit/stages" .venv/bin/python tests/deployment/run_on_postgres.py
