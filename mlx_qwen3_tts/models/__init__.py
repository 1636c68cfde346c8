"""The networks of model.safetensors."""
