"""Parametric faces with known age, identity and attributes, and corpora made of them."""
