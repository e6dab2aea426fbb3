"""What looks at cameras, in processes of their own: the picture never leaves them, only numbers do."""
