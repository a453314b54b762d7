"""Where connections come in: what they may cost before anybody knows who it is."""
