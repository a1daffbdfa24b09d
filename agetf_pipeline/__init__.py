"""AGETF: from raw face photographs to a model that renders ten ages from one pass."""

__version__ = "0.1.0"
