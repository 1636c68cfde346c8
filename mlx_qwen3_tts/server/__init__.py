"""The server: the speech endpoint that OpenAI's clients call, streaming, over HTTP and WebSocket."""
