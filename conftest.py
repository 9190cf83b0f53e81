"""Lets the suite run pytest inside pytest."""

pytest_plugins = ["pytester"]
