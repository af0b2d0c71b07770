"""What holds values: sparse linear layers and convolutions, and what goes along with them."""
