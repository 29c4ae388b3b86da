"""The engine process: one loaded model behind a pipe, and the client that talks to it."""
