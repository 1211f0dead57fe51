"""The benchmark behind ``fastconv bench``; ``import fastconv`` does not import it.

``suites`` names the layers, ``peers`` the libraries they are compared with, ``machine`` what the
processor can do, ``runner`` takes the times, ``results`` keeps them, ``report`` and ``plot`` show
them.
"""
