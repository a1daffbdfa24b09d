"""Files for others: tables, cards, Croissant metadata, checksums."""

CHECKSUMS = "checksums.sha256"
"""The file of a release that lists all others, as `sha256sum -c` reads it; written last."""
