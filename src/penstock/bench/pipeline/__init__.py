"""Benchmarks of any pipeline: records generated from its contracts, an open-loop load, a checked job, a report."""
