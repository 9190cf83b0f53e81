"""One gate from its plan to its verdict; free of torch."""
