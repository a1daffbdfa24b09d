"""Parametric faces with known age, identity and attributes, and corpora of them.

Everything here is drawn by formulas: no photograph and no person stands behind a face.
"""
