"""What models are on this machine, read from their files without torch."""
