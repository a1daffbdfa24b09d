"""Expectation suites per table: the only importer of great_expectations."""
