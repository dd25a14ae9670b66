"""Hypothesis without a deadline: test machines are shared, and a slow moment is no failure."""

from hypothesis import settings

settings.register_profile("shared_machine", deadline=None)
settings.load_profile("shared_machine")
