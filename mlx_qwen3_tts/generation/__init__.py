"""From a request to chunks of audio."""
