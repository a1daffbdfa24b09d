"""Dagster assets: a file per stage, thin."""
