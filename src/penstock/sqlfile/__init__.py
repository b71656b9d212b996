"""Pipelines written as one SQL file. See docs/guides/sql-files.md for the statements."""

from penstock.sqlfile.read import read_pipeline as read_pipeline
