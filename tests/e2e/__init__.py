"""The system end to end, and the stand-ins for AWS that it runs against."""
