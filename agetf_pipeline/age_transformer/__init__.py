"""The AgeTransformer: age embedding, encoder, decoder, discriminator, losses, renderer."""
