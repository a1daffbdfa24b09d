"""What a person does with finished models and own files: render ages, estimate ages."""
