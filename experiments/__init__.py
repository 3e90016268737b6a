"""Experiments on the method's effect, each reproducible by one command and stated before it is run."""
