"""Python that is not the product: stand-ins for AWS, screenshots, costs."""
