"""Emulated numerics of the built-in formats; imports torch, so import it lazily."""
