"""The four age experts behind one protocol."""
