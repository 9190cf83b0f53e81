"""Reports tell: terminal, files, pictures."""
