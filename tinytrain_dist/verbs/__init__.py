"""One file per verb of the ``tinytrain`` command: read options, call one function, print the answer."""
