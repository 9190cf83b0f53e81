"""Measure an arm: time, memory, telemetry, compilation."""
