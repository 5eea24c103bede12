"""Values that other libraries gave, and the scripts that asked them."""
