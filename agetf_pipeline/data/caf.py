"""Cross-Age Face (CAF): shards of images of known people at known ages, each with a manifest."""

MANIFEST_NAME = "manifest.csv"
