"""What the real clients see of EC2's API."""
