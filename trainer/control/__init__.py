"""Control adapters: low-rank maps of what a decoder layer adds to its residual stream, with a sign for each token.

scaled   PATH:SCALE on command lines
sites    where they stand, by family; without torch
forms    their arithmetic
tuner    a saved adapter under PEFT: its config, its layers, steering
hooked   a model with a saved adapter on it, at any scale: the reference that conversions are measured against
directions, vectors   control vectors: how they are found, and files of them on a model

Those that are trained stand in stacks of several streams: `trainer.loop.site`.
"""
