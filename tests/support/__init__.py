"""Shared test helpers: checkpoints, sounds, golden data, stand-ins and tolerances."""
