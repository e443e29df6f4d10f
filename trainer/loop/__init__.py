"""One loop that trains one or more adapters on one frozen base, each exactly as if it were alone.

plan      whose rows are in a forward pass
layer     a frozen linear layer with the adapters of all streams beside it
adapter   what a stream trains, made and named as PEFT does
head      from hidden states to losses, in chunks
batches   which rows a step holds
stream    one fine-tune: its parts and one optimizer step
loop      the streams' joint forward and backward passes
boundary  what is told and asked after each step
recipe    what a stream is made of, from its settings
"""
