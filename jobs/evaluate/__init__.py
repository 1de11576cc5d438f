"""Evaluation of a model on a benchmark: an ordinary run of the factory, and scores computed from what it stored."""
