"""A small convolutional network that learns to read handwritten digits: ``fastconv demo``.

``training.py`` is the lesson, from ReLU to the training loop in plain NumPy; around it, ``data.py``
loads the digits, ``timing.py`` and ``figure.py`` show the outcome, ``command.py`` is the command.
"""
