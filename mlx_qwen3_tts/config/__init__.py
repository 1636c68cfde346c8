"""The configuration files of a checkpoint as dataclasses."""
