"""Files for others: tables, cards, Croissant metadata, checksums."""
