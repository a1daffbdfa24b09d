"""What the assets are given: configuration and workspace, and the GPU pool."""
