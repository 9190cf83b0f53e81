"""``pytest --mxq-doctor``: what this machine can gate, and what to do where it cannot."""
