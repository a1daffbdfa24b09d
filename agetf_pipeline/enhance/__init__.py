"""DDColor and ESRGAN: networks, their training on small corpora, decisions, sidecars."""
