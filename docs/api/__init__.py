"""The API in pictures, and the script that takes them."""
