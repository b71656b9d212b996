"""Logs, metrics and the masking of personal data. Nothing here knows pipelines; the runtime calls it."""
