"""What messages of a chat hold besides text: images, and what tools are called with."""
