"""Baselines remember: what was measured, on what, and whether it still compares.

`fingerprint` says what must be equal for numbers to be comparable, `identity` what a case was when it ran, `schema`
what a manifest holds (read and written by `strict`), `store` where it lies (with `names`, `files` and, for what video
models generate, `videos` and `matroska` underneath).
"""
