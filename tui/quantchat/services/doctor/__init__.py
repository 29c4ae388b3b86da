"""What is wrong with this machine for quantized models, and the command that mends it."""
