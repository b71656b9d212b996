"""The crash harness: a job under load is killed again and again, and must count exactly at the end (semantics P2)."""
