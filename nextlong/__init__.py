"""The method, Negative Document Extension (arXiv:2501.12766), as pure functions over strings and arrays."""

__version__ = "0.1.0"
