"""Surgery on nets: module in, module out."""
