"""The page in pictures, and the script that takes them."""
