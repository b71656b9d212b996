"""What all law tests have."""

from tests.law.kept import kept as kept
