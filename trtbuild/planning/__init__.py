"""What `trtbuild plan` works out and shows."""
