"""From dataset files to tokenised rows with labels; nothing here needs torch.

`files` reads, `rows` understands, `render` writes text with supervised spans, `tokens` makes ids and labels, `splits` holds rows
out, `prepared` keeps the result.
"""
