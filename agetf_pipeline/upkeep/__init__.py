"""Keeping a workspace well: checking the machine, verifying what was made, forgetting people."""
