"""What a GGUF file says of itself, read without loading its weights: metadata, chat template, sizes."""
