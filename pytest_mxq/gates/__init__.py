"""Gates decide: pure functions from (measurement, baseline, bound) to a verdict."""
