"""Stored BF16 baselines: what was measured, on what, and whether it is still comparable.

`identity` says what a case was when it ran, `manifest` what a baseline holds (read and written by `strict_json`),
`store` where it is stored (by `paths`, `storage` and `png`, and for video models by `media` and `video`).
"""
