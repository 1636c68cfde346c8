"""Makes golden data with the official package, in an environment of its own."""
