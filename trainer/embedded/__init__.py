"""The embedded base model (`tiny-toon/`), the scripts that make it, and the demo's data; nothing here is used while a stream trains."""
