"""What this machine has: GPUs through NVML, host memory."""
