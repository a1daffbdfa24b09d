#!/bin/sh
# Run once by the PostgreSQL image, on an empty volume: a role and a database each for Dagster and
# MLflow, so that neither can read the other's.
set -eu
psql --set=ON_ERROR_STOP=1 --quiet --username "$POSTGRES_USER" --dbname "${POSTGRES_DB:-postgres}" \
  --set=dagster="$DAGSTER_PG_PASSWORD" --set=mlflow="$MLFLOW_PG_PASSWORD" <<'SQL'
CREATE ROLE dagster LOGIN PASSWORD :'dagster';
CREATE DATABASE dagster OWNER dagster;
REVOKE ALL ON DATABASE dagster FROM PUBLIC;
CREATE ROLE mlflow LOGIN PASSWORD :'mlflow';
CREATE DATABASE mlflow OWNER mlflow;
REVOKE ALL ON DATABASE mlflow FROM PUBLIC;
SQL
