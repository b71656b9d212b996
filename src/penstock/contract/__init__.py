"""Contracts: a source's schema and constraints, and the verdict on each record."""
