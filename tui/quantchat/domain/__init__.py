"""What quantchat talks about: messages, sampling, models, bytes. Standard library and msgspec, no I/O."""
