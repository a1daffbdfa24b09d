"""Captions and embeddings by Janus, without words of age."""
