"""Runs reference layers and steps on the machine it stands on -> rows of measurements."""
