"""The project's drawings and pictures, and the scripts that take them."""
