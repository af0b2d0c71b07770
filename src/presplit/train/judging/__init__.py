"""How right a trained net is, and when its exits may answer."""
