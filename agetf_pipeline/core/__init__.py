"""Machinery below every other package: errors, hashing, atomic files, locks, progress, fitting."""
