"""Readers of corpora, safe image reading and quarantine, table schemas, splits."""
