"""Fine-tuning: a voice of one's own, from recordings and their texts."""
