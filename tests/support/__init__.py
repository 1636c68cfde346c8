"""What the tests share: checkpoints, sounds, golden data, stand-ins and bars."""
