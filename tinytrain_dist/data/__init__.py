"""Domains of images, the sources they are read from, episode samplers, and image transforms."""
