"""Envelopes over ZeroMQ between one hub and many peers; knows nothing of fine-tuning, and is the only package that imports zmq.

Start reading at `bus.envelope`, whose docstring is the wire protocol; `bus.hub` is the coordinator's end, `bus.peer` everyone
else's, `bus.keys` says who may join. Nothing is imported here, so `import bus.envelope` and `import bus.liveness` load no zmq.
"""
