"""Messages over ZeroMQ between one hub and many peers. Knows nothing of fine-tuning; the only package that imports zmq.

Start with `bus.envelope`, whose docstring specifies the wire protocol. `bus.hub` is the coordinator's end, `bus.peer` the end of all
others, `bus.keys` the list of members. Nothing is imported here, so `import bus.envelope` and `import bus.liveness` load no zmq.
"""
