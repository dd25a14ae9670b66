"""Meta-training and simulated on-device few-shot training over fleets of devices.

Where to start: ``graphs`` holds the words everything shares (layer graph, update plan, budget),
``adaptation`` is the method itself, ``simulation`` fans it out, ``verbs`` are the doors.
"""

__version__ = "0.1.0"
