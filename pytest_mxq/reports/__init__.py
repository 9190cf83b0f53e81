"""Reports tell: terminal, files, images."""
