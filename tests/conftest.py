"""Hypothesis without a deadline: test machines are shared, and a slow moment is no failure. S3 for who asks for it."""

from hypothesis import settings
from s3_server import s3_bucket, s3_endpoint

__all__ = ["s3_bucket", "s3_endpoint"]

settings.register_profile("shared_machine", deadline=None)
settings.load_profile("shared_machine")
