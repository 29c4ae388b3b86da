"""Making a quantized model of one's own: what it takes, the job, and what is done with the result."""
