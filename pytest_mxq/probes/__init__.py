"""Probes measure: how far pictures are apart, and whether they are pictures at all."""
