"""Torch modules built from the layer graphs, and their weights in and out. No Ray here."""
