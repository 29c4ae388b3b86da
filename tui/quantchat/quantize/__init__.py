"""Making and judging quantized models; runs inside the engine process."""
