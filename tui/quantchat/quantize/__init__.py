"""Making quantized models and measuring them; runs inside the engine process."""
