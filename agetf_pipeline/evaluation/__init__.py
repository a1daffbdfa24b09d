"""What is measured of labels, enhancement and renderings, with intervals."""
