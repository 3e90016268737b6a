"""Other projects' programs on the same data, run by the Pythons that tests/readers/environments.py sets up."""
