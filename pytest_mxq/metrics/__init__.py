"""Measures of images, videos and audio against a reference, and the outputs that are degenerate."""
