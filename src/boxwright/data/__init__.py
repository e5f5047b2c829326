"""Tables, the formats they come in, and what a detector trains on."""
