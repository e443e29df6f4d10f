"""Demonstrations of the Unified controller beside plain arms, on the embedded base or one of yours; whoever wins is printed.

Each arm has the learning rate, of several, with which it was best on a seed of its own, which is not among those that are reported.
"""
